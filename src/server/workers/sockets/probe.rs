//! Making and using the sockets of transports once before the server is ready: what the kernel, or what confines this process,
//! refuses and Weir cannot do without is an error then, instead of with each transport.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::thread;

use weir_channel::message::IceProtocol;
use weir_worker::process;

use super::{LocalAddresses, SocketMaker};
use crate::server::model::error::{Error, StartError};
use crate::server::workers::ports::PortCount;

impl SocketMaker {
    /// Does what transports need, at each address, on free ports; workers inherit what confines this process. Where no port is
    /// free there is nothing to be tried, which transports will say.
    ///
    /// # Errors
    /// [`StartError::Kernel`], [`StartError::Io`] if there is no thread for it.
    pub(crate) fn probe(&self, addresses: LocalAddresses, tcp: bool) -> Result<(), StartError> {
        addresses.ips().try_for_each(|ip| {
            self.probe_udp(ip)?;
            if tcp { self.probe_tcp(ip) } else { Ok(()) }
        })
    }

    fn probe_udp(&self, ip: IpAddr) -> Result<(), StartError> {
        let make = || -> Result<_, Error> {
            let sockets = self.make(ip, PortCount::One)?;
            let descriptors = sockets.descriptors().map_err(Error::io("duplicating sockets"))?;
            Ok((sockets, descriptors))
        };
        let Some((_one, near)) = unless_no_port(make())? else {
            return Ok(());
        };
        let Some((other, far)) = unless_no_port(make())? else {
            return Ok(());
        };
        let far_end = other.rtp_address();
        // What a worker asks for at its start stays with the thread that asks for it.
        let probing = thread::Builder::new()
            .name("weir-probe".to_owned())
            .spawn(move || process::probe(near, far, far_end));
        let probed = probing.map_err(StartError::io("starting the thread that tries out the sockets"))?;
        match probed.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => Err(StartError::Kernel(refusal.to_string())),
            Err(_) => Err(StartError::Kernel(
                "something that makes it panic; see its log".to_owned(),
            )),
        }
    }

    fn probe_tcp(&self, ip: IpAddr) -> Result<(), StartError> {
        let made = self.listen(&[(IceProtocol::Tcp, ip)]).and_then(|sockets| {
            let descriptors = sockets.descriptors().map_err(Error::io("duplicating sockets"))?;
            Ok((sockets, descriptors))
        });
        if let Some((_sockets, descriptors)) = unless_no_port(made)? {
            descriptors
                .iter()
                .for_each(|listener: &OwnedFd| process::probe_tcp(listener));
        }
        Ok(())
    }
}

fn unless_no_port<T>(made: Result<T, Error>) -> Result<Option<T>, StartError> {
    match made {
        Ok(made) => Ok(Some(made)),
        Err(Error::PortsExhausted { .. }) => Ok(None),
        Err(error) => Err(StartError::Kernel(error.to_string())),
    }
}
