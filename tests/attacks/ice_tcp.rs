//! ICE over TCP (RFC 6544): those who take all the places, and those whose frames are none (RFC 4571).

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::Scale;
use crate::arena::{Arena, Figures, Site};
use crate::call::WebRtc;
use crate::flood::{Random, Stop, time};
use crate::ice::check;
use crate::loopback::free_ports;
use crate::meters::now;

/// An honest client gives up after this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections that an attacker holds at once.
const HELD: usize = 500;

/// A connection from one of this machine's addresses.
pub(crate) fn connect_from(source: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket.into())
}

/// A packet in its frame (RFC 4571 §2).
fn framed(packet: &[u8]) -> Vec<u8> {
    [&(packet.len() as u16).to_be_bytes()[..], packet].concat()
}

/// Whether a client who knows the password is answered on a new connection.
fn is_answered(transport: &WebRtc, home: IpAddr, number: u64) -> bool {
    let attempt = || {
        let mut stream = connect_from(home, transport.address("tcp"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // Clients are not so quick that the attacker has no chance.
        std::thread::park_timeout(Duration::from_millis(50));
        stream.write_all(&framed(&check(transport.ufrag(), transport.password(), number)))?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        // After the length: a success response.
        Ok::<bool, std::io::Error>(answer[2..] == [1, 1])
    };
    attempt().unwrap_or(false)
}

/// Connects without end while honest clients try.
pub(crate) async fn crowd_out(scale: Scale, site: Site) -> Figures {
    let arena = Arena::open_at(scale, site).await;
    let mut client = arena.client().await;
    let transport = WebRtc::create(&mut client, arena.room, json!({})).await;
    let to = transport.address("tcp");
    let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stopped, count) = (Arc::clone(&stop), Arc::clone(&opened));
    let family = arena.family;
    let crowd = tokio::task::spawn_blocking(move || {
        let mut held = VecDeque::new();
        while !stopped.load(Ordering::Relaxed) {
            let number = count.load(Ordering::Relaxed);
            if let Ok(stream) = connect_from(family.one_of_strangers(number), to) {
                count.store(number + 1, Ordering::Relaxed);
                held.push_back(stream);
            }
            if held.len() > HELD {
                held.pop_front();
            }
            // A thousand a second.
            std::thread::park_timeout(Duration::from_millis(1));
        }
    });
    let guard = Stop(stop);
    arena.pass(Duration::from_millis(300)).await;
    let tries = scale.of(8, 60);
    let answered = tokio::task::spawn_blocking(move || {
        let answered = (0..tries)
            .filter(|number| is_answered(&transport, family.home(), *number as u64))
            .count();
        drop(guard);
        answered
    })
    .await
    .unwrap();
    crowd.await.unwrap();
    assert_eq!(answered, tries, "honest clients were answered");
    let figures = arena.close().await;
    figures
        .with("connections", opened.load(Ordering::Relaxed))
        .with("honest clients answered", answered as u64)
}

pub(crate) async fn crowding_out_a_port(scale: Scale) -> Figures {
    crowd_out(scale, Site::PLAIN).await
}

pub(crate) async fn crowding_out_a_shared_port(scale: Scale) -> Figures {
    let site = Site {
        shared_port: Some(free_ports(1)),
        ..Site::PLAIN
    };
    crowd_out(scale, site).await
}

pub(crate) async fn garbage_as_frames(scale: Scale) -> Figures {
    let arena = Arena::open(scale).await;
    let mut client = arena.client().await;
    let transport = WebRtc::create(&mut client, arena.room, json!({})).await;
    let to = transport.address("tcp");
    let family = arena.family;
    let valid = framed(&check(transport.ufrag(), transport.password(), 1));
    let (connections, bytes) = tokio::task::spawn_blocking(move || {
        let (mut random, began) = (Random::new(3), now());
        let (mut connections, mut written) = (0_u64, 0_u64);
        while now() - began < time(scale) {
            let Ok(mut stream) = connect_from(family.stranger(), to) else {
                continue;
            };
            stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            connections += 1;
            // Some have shown the password first.
            let mut all = if random.below(2) == 0 {
                valid.clone()
            } else {
                Vec::new()
            };
            for _ in 0..random.below(50) {
                let len = random.below(300) as usize;
                let said = [0, 1, len, len, len, 65_535][random.below(6) as usize];
                all.extend((said as u16).to_be_bytes());
                all.extend(random.bytes(len));
            }
            written += all.len() as u64;
            // The server may hang up in the middle.
            let _ = stream.write_all(&all);
            std::thread::park_timeout(Duration::from_millis(1));
        }
        (connections, written)
    })
    .await
    .unwrap();
    assert!(
        tokio::task::spawn_blocking(move || is_answered(&transport, family.home(), 9))
            .await
            .unwrap()
    );
    arena
        .close()
        .await
        .with("connections", connections)
        .with("bytes", bytes)
}
