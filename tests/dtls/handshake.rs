//! One handshake of ours with somebody else over a bad network, in real time.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use weir_worker::time::Time;
use weir_worker::webrtc::dtls::session::{Established, Event};
use weir_worker::webrtc::dtls::{Clock, Context, DtlsRole, FingerprintAlgorithm, RemoteParameters, Role, Session};
use weir_worker::webrtc::srtp::{KeyingMaterial, Profile};

use super::certificates::Shown;
use super::network::{Network, Way};
use super::peers::Said;

/// A bound on a whole handshake, for what hangs: what Weir gives one at most, and a little more.
const LIMIT: Duration = Duration::from_secs(130);

const DATAGRAM_BYTES_MAX: usize = 65_535;

/// What meets whom.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// Ours.
    pub(crate) role: Role,
    /// The peer's.
    pub(crate) mtu: u16,
    pub(crate) shown: &'static Shown,
    pub(crate) seed: u64,
}

/// Our time, which begins with the tests.
#[derive(Clone, Copy)]
pub(crate) struct Epoch(Instant);

impl Epoch {
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn clock(self) -> Clock {
        Clock::new(self.0.into_std(), Time(0))
    }

    fn time(self, instant: Instant) -> Time {
        Time(0) + (instant - self.0)
    }

    fn instant(self, time: Time) -> Instant {
        self.0 + Duration::from_nanos(time.0)
    }
}

/// Our end.
struct End {
    epoch: Epoch,
    session: Session,
    socket: UdpSocket,
    network: Network,
    /// Datagrams that are about to be handed to the session.
    arrived: Vec<Vec<u8>>,
}

impl End {
    fn act(&mut self, now: Instant, act: impl FnOnce(&mut Session, Time, &mut dyn FnMut(&[u8]))) {
        let (socket, network) = (&self.socket, &mut self.network);
        let mut send = |datagram: &[u8]| {
            for _ in 0..network.send(now, Way::OutOfWeir, datagram) {
                // A peer that has gone is told about by what it said last.
                let _ = socket.try_send(datagram);
            }
        };
        act(&mut self.session, self.epoch.time(now), &mut send);
    }

    fn arrive(&mut self, now: Instant, datagram: &[u8]) {
        for _ in 0..self.network.send(now, Way::IntoWeir, datagram) {
            self.arrived.push(datagram.to_vec());
        }
    }

    /// Everything that is due.
    fn turn(&mut self, now: Instant) {
        while let Some((way, datagram)) = self.network.receive(now) {
            match way {
                Way::IntoWeir => self.arrived.push(datagram),
                Way::OutOfWeir => drop(self.socket.try_send(&datagram)),
            }
        }
        for datagram in std::mem::take(&mut self.arrived) {
            self.act(now, |session, time, send| {
                session.handle_datagram(time, &datagram, send)
            });
        }
        self.act(now, |session, time, send| session.handle_timeout(time, send));
    }

    /// When something is due, if nothing arrives before that.
    fn next(&self) -> Option<Instant> {
        let session = self.session.poll_timeout().map(|time| self.epoch.instant(time));
        [session, self.network.poll_timeout()].into_iter().flatten().min()
    }
}

/// How long a handshake took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) ours: Duration,
    /// Until the other end was done, too.
    pub(crate) both: Duration,
}

/// Shakes hands with the peer that knocks on the socket, until both are done. Returns how long that took, or why it did not
/// become what it is to be; and how many datagrams were sent, and lost.
pub(crate) async fn shake_hands(
    case: Case,
    epoch: Epoch,
    context: Arc<Context>,
    socket: UdpSocket,
    mut told: oneshot::Receiver<Said>,
) -> (Result<Took, String>, (u64, u64)) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let begins = timeout_at(Instant::now() + LIMIT, socket.recv_from(&mut buffer)).await;
    let Ok(Ok((_, peer))) = begins else {
        return (Err(format!("the peer does not begin: {told:?}")), (0, 0));
    };
    socket.connect(peer).await.expect("loopback leads everywhere");
    let start = Instant::now();
    let mut end = End {
        epoch,
        session: Session::new(Arc::clone(&context)),
        socket,
        network: Network::new(case.seed),
        arrived: Vec::new(),
    };
    let parameters = RemoteParameters {
        role: match case.role {
            Role::Client => DtlsRole::Server,
            Role::Server => DtlsRole::Client,
        },
        fingerprints: vec![case.shown.fingerprint()],
    };
    end.act(start, |session, time, send| {
        session
            .set_remote(time, &parameters, send)
            .expect("the parameters are right");
        session.start(time, send);
    });
    let (mut ours, mut theirs) = (None, None);
    loop {
        while let Some(event) = end.session.poll_event() {
            match event {
                Event::Connecting => {}
                Event::Connected(established) => ours = Some((established, start.elapsed())),
                Event::Failed(failure) => {
                    let after = start.elapsed().as_secs_f32();
                    let theirs = theirs.or_else(|| told.try_recv().ok());
                    let error = format!("we fail after {after:.1} s: {failure:?}; the peer says {theirs:?}");
                    return (Err(error), end.network.counts);
                }
                Event::Closed => return (Err("the peer says goodbye".to_owned()), end.network.counts),
            }
        }
        if theirs.as_ref().is_some_and(|said: &Said| said.error.is_some()) {
            return (Err(format!("the peer fails: {theirs:?}")), end.network.counts);
        }
        if let (Some((established, took)), Some(theirs)) = (&ours, &theirs) {
            let agreed = agree(&case, &context, established, theirs);
            let both = start.elapsed();
            return (agreed.map(|()| Took { ours: *took, both }), end.network.counts);
        }
        if start.elapsed() > LIMIT {
            let error = format!(
                "waited in vain, for us: {}, for the peer: {}",
                ours.is_none(),
                theirs.is_none()
            );
            return (Err(error), end.network.counts);
        }
        let until = end.next().unwrap_or(start + LIMIT).min(start + LIMIT);
        tokio::select! {
            received = timeout_at(until, end.socket.recv(&mut buffer)) => {
                if let Ok(Ok(len)) = received {
                    end.arrive(Instant::now(), &buffer[..len]);
                }
            }
            said = &mut told, if theirs.is_none() => match said {
                Ok(said) => theirs = Some(said),
                Err(_) => return (Err("the peer's program has ended".to_owned()), end.network.counts),
            }
        }
        end.turn(Instant::now());
    }
}

/// Whether both ends have seen the same.
fn agree(case: &Case, context: &Context, ours: &Established, theirs: &Said) -> Result<(), String> {
    if ours.remote_certificate != case.shown.pem() {
        return Err("we report another certificate than the peer has".to_owned());
    }
    let fingerprints = context.certificate().fingerprints();
    let sha256 = fingerprints
        .iter()
        .find(|each| each.algorithm() == FingerprintAlgorithm::Sha256);
    let sha256 = sha256.map(|each| each.to_string().replace(':', "").to_lowercase());
    if sha256.as_deref() != Some(&theirs.fingerprint) {
        return Err(format!("the peer has seen another certificate than ours: {theirs:?}"));
    }
    let keys = &ours.keys;
    // OpenSSL has a name of its own for the usual profile, without HMAC.
    let profile = match theirs.profile.as_str() {
        "SRTP_AES128_CM_SHA1_80" | "SRTP_AES128_CM_HMAC_SHA1_80" => Profile::Aes128CmSha1_80,
        "SRTP_AEAD_AES_128_GCM" => Profile::AeadAes128Gcm,
        other => return Err(format!("the peer has chosen {other}")),
    };
    let exported: Option<Vec<u8>> = theirs.exported.as_bytes().chunks(2).map(byte).collect();
    let exported = exported
        .as_ref()
        .and_then(|material| KeyingMaterial::split(profile, material.get(..profile.keying_material_len())?, case.role));
    if exported.as_ref() != Some(keys) {
        return Err(format!("the ends have other keys: {keys:?}, {theirs:?}"));
    }
    Ok(())
}

fn byte(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
