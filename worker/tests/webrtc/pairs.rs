//! Clients that nominate all their pairs, as Firefox does against a lite server, on networks where one of them does not lead
//! back: DTLS is answered where it came from, and media goes where the client's traffic comes from (RFC 8445 §8.1.1, §12).

use std::net::SocketAddr;
use std::time::Duration;

use weir_worker::time::Time;
use weir_worker::webrtc::budget::Budgets;
use weir_worker::webrtc::dtls::{DtlsRole, RemoteParameters, Role, Settings, State};
use weir_worker::webrtc::entropy::SystemEntropy;
use weir_worker::webrtc::ice::{Credentials, Tuple};
use weir_worker::webrtc::stun::{BINDING, Class, Writer, attribute};
use weir_worker::webrtc::transport::{Event, Received, WebRtcTransport};

use crate::peer::{DtlsPeer, answer_to_check};
use crate::world::{Outbox, clock, context, tuple};

/// Where the client sends from, by pair.
const PAIRS: [&str; 3] = ["198.51.100.7:4000", "203.0.113.7:4000", "192.0.2.77:4000"];

/// Until a handshake flight that is not answered is sent again for the first time (RFC 6347 §4.2.4.1 allows less than 1 s).
const PATIENCE: Duration = Duration::from_millis(1_000);

/// A client with several pairs, all of which lead to the server, and some of which lead back.
struct Client {
    now: Time,
    server: WebRtcTransport,
    worker: Budgets,
    dtls: DtlsPeer,
    /// Which lead back.
    leads_back: [bool; PAIRS.len()],
    /// By which it sends.
    used: usize,
    /// Whether it answers requests without credentials, as browsers do and some libraries do not.
    answers: bool,
    /// What the server sent, by pair, whether it arrived or not.
    sent: Vec<(usize, Vec<u8>)>,
    events: Vec<Event>,
    transaction: u32,
}

fn pair(number: usize) -> Tuple {
    tuple(PAIRS[number].parse::<SocketAddr>().unwrap())
}

impl Client {
    fn new(role: Role, leads_back: [bool; PAIRS.len()], used: usize) -> Self {
        let clock = clock();
        let credentials = Credentials::generate(&mut SystemEntropy::new());
        let server = WebRtcTransport::new(credentials, context(clock, Settings::default()));
        let mut client = Self {
            now: Time(0),
            server,
            worker: Budgets::of_a_worker(),
            dtls: DtlsPeer::new(clock, Time(0), role, false),
            leads_back,
            used,
            answers: true,
            sent: Vec::new(),
            events: Vec::new(),
            transaction: 0,
        };
        let parameters = RemoteParameters {
            role: match role {
                Role::Client => DtlsRole::Client,
                Role::Server => DtlsRole::Server,
            },
            fingerprints: vec![client.dtls.fingerprint()],
        };
        let now = client.now;
        client.with_server(|server, _, outbox| server.set_remote_dtls(now, &parameters, outbox).unwrap());
        client
    }

    fn with_server<T>(&mut self, act: impl FnOnce(&mut WebRtcTransport, &mut Budgets, &mut Outbox) -> T) -> T {
        let mut outbox = Outbox::default();
        let done = act(&mut self.server, &mut self.worker, &mut outbox);
        self.events.extend(outbox.events);
        let number = |to: Tuple| (0..PAIRS.len()).find(|number| pair(*number) == to).unwrap();
        self.sent
            .extend(outbox.sent.into_iter().map(|(to, bytes)| (number(to), bytes)));
        done
    }

    fn deliver(&mut self, number: usize, bytes: &[u8]) -> Received {
        let now = self.now;
        self.with_server(|server, worker, outbox| server.handle_datagram(now, pair(number), bytes, worker, outbox))
    }

    /// A nominating check in a transaction of its own, and how long it is.
    fn nominate(&mut self, number: usize) -> usize {
        self.transaction += 1;
        let mut transaction = [0; 12];
        transaction[..4].copy_from_slice(&self.transaction.to_be_bytes());
        let credentials = self.server.credentials().clone();
        let username = format!("{}:theirs", credentials.username_fragment());
        let mut check = Vec::new();
        Writer::new(&mut check, Class::Request, BINDING, transaction)
            .attribute(attribute::USERNAME, username.as_bytes())
            .attribute(attribute::PRIORITY, &[0x6e, 0, 1, 0xff])
            .attribute(attribute::ICE_CONTROLLING, &[7; 8])
            .attribute(attribute::USE_CANDIDATE, &[])
            .integrity(credentials.key())
            .fingerprint();
        assert_eq!(self.deliver(number, &check), Received::Control);
        check.len()
    }

    /// Answers the server's checks that have arrived, as browsers do.
    fn answer_checks(&mut self) {
        for (number, bytes) in self.sent.clone() {
            if self.leads_back[number]
                && let Some(answer) = answer_to_check(&bytes)
            {
                self.deliver(number, &answer);
            }
        }
        self.sent.clear();
    }

    /// A packet of media, opened and found to be the newest of its stream, came by a pair.
    fn media(&mut self, number: usize) {
        let now = self.now;
        self.server.admit_media(&pair(number)).unwrap();
        if self.server.on_authentic_media(now, &pair(number)) {
            self.with_server(|server, _, outbox| server.handle_events(now, outbox));
        }
    }

    /// Lets 5 ms pass: what has arrived is answered, and what is late is sent again.
    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(5);
        let now = self.now;
        let mut arrived = vec![None];
        for (number, bytes) in std::mem::take(&mut self.sent) {
            if !self.leads_back[number] {
                continue;
            }
            if let Some(answer) = answer_to_check(&bytes).filter(|_| self.answers) {
                self.deliver(number, &answer);
            } else if bytes[0] >= 20 {
                arrived.push(Some(bytes));
            }
        }
        for datagram in arrived {
            for bytes in self.dtls.drive(now, datagram.as_deref()) {
                self.deliver(self.used, &bytes);
            }
        }
        self.with_server(|server, _, outbox| server.handle_timeout(now, outbox));
    }

    fn is_connected(&self) -> bool {
        self.server.dtls_state() == State::Connected && self.dtls.connected
    }

    /// Connects, or does not in this time.
    fn connects_within(&mut self, limit: Duration) -> bool {
        let end = self.now + limit;
        while self.now < end && !self.is_connected() {
            self.step();
        }
        self.is_connected()
    }

    /// By which pairs DTLS was sent since the last step.
    fn dtls_sent_by(&self) -> Vec<usize> {
        let dtls = self.sent.iter().filter(|(_, bytes)| (20..64).contains(&bytes[0]));
        dtls.map(|(number, _)| *number).collect()
    }
}

/// The orders in which three pairs can be checked.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[test]
fn a_client_whose_other_pairs_do_not_lead_back_connects_in_either_role() {
    for role in [Role::Client, Role::Server] {
        for order in ORDERS {
            for used in 0..PAIRS.len() {
                let mut leads_back = [false; PAIRS.len()];
                leads_back[used] = true;
                let mut client = Client::new(role, leads_back, used);
                for number in order {
                    client.nominate(number);
                }
                assert!(client.connects_within(PATIENCE), "{role:?} {order:?} {used}");
                // Where our part of the handshake went by several, a check of ours has to be answered.
                client.step();
                assert_eq!(client.server.media_tuple(), Some(&pair(used)));
                // The checks of the others are sent again, and change nothing.
                client.events.clear();
                for _ in 0..100 {
                    for number in order {
                        client.nominate(number);
                        client.media(used);
                    }
                    client.step();
                }
                assert_eq!(client.events, []);
                assert_eq!(client.server.media_tuple(), Some(&pair(used)));
            }
        }
    }
}

#[test]
fn a_hello_is_answered_where_it_came_from_and_moves_no_media() {
    for used in 0..PAIRS.len() {
        let mut client = Client::new(Role::Client, [true; PAIRS.len()], used);
        for number in 0..PAIRS.len() {
            client.nominate(number);
        }
        client.sent.clear();
        let now = client.now;
        let selected = client.server.selected_tuple().copied();
        for hello in client.dtls.drive(now, None) {
            client.deliver(used, &hello);
        }
        assert_eq!(client.dtls_sent_by(), [used]);
        assert_eq!(client.server.selected_tuple().copied(), selected);
    }
}

#[test]
fn what_is_sent_again_goes_where_the_peers_dtls_came_from_last() {
    // The client sends its first message by a pair that does not lead back, and finds that out.
    let mut client = Client::new(Role::Client, [false, false, true], 0);
    for number in 0..PAIRS.len() {
        client.nominate(number);
    }
    let now = client.now;
    for hello in client.dtls.drive(now, None) {
        client.deliver(0, &hello);
    }
    client.used = 2;
    assert!(client.connects_within(2 * PATIENCE));
    assert_eq!(client.server.media_tuple(), Some(&pair(2)));

    // The certificates of the server are lost: they go where the client waits, and only there.
    let mut client = Client::new(Role::Client, [false, true, false], 1);
    for number in 0..PAIRS.len() {
        client.nominate(number);
    }
    while client.sent.iter().all(|(_, bytes)| bytes.len() < 200) {
        client.step();
    }
    client.sent.clear();
    while client.sent.is_empty() {
        client.now = client.now + Duration::from_millis(5);
        let now = client.now;
        client.with_server(|server, _, outbox| server.handle_timeout(now, outbox));
    }
    assert!(client.dtls_sent_by().iter().all(|number| *number == 1));
    // If that is not answered either: still only there. By the others came checks, which anybody may have sent from anywhere, and a
    // flight is many times as long. A client that has moved says its own again, from where it is.
    client.sent.clear();
    while client.sent.is_empty() {
        client.now = client.now + Duration::from_millis(5);
        let now = client.now;
        client.with_server(|server, _, outbox| server.handle_timeout(now, outbox));
    }
    let mut to = client.dtls_sent_by();
    to.sort_unstable();
    to.dedup();
    assert_eq!(to, [1]);
}

#[test]
fn what_is_in_the_clear_moves_no_media() {
    let mut client = Client::new(Role::Client, [true; PAIRS.len()], 1);
    for number in 0..PAIRS.len() {
        client.nominate(number);
    }
    assert!(client.connects_within(PATIENCE));
    client.events.clear();
    let hello = {
        let mut other = DtlsPeer::new(clock(), Time(0), Role::Client, false);
        other.drive(Time(0), None).remove(0)
    };
    // Protected, it says: but nobody can read it.
    let forged = [22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4];
    for _ in 0..1_000 {
        for number in [0, 2] {
            client.deliver(number, &hello);
            client.deliver(number, &forged);
        }
        client.step();
    }
    assert_eq!(client.events, []);
    assert_eq!(client.server.media_tuple(), Some(&pair(1)));
}

#[test]
fn a_client_that_moves_is_followed_when_it_has_answered_once() {
    let mut client = Client::new(Role::Client, [true, true, true], 0);
    client.nominate(0);
    assert!(client.connects_within(PATIENCE));
    client.media(0);
    // Its network is gone, and it has another one.
    client.nominate(1);
    assert_eq!(client.server.media_tuple(), Some(&pair(0)));
    client.answer_checks();
    assert_eq!(client.server.media_tuple(), Some(&pair(1)));
    client.media(1);
    // A check that was on its way for long is answered, and no more than that.
    client.now = client.now + Duration::from_millis(400);
    client.nominate(0);
    assert_eq!(client.server.media_tuple(), Some(&pair(1)));
    // And back.
    client.nominate(0);
    client.media(0);
    assert_eq!(client.server.media_tuple(), Some(&pair(0)));
}

#[test]
fn when_the_pair_in_use_stops_leading_back_the_client_moves_and_is_followed() {
    let mut client = Client::new(Role::Client, [true, true, false], 0);
    client.nominate(1);
    client.nominate(0);
    assert!(client.connects_within(PATIENCE));
    client.media(0);
    // Its checks are not answered any more, so it sends by the other one, which it had nominated long ago.
    client.now = client.now + Duration::from_secs(8);
    client.nominate(0);
    client.media(1);
    client.now = client.now + Duration::from_millis(100);
    client.media(1);
    assert_eq!(client.server.media_tuple(), Some(&pair(1)));
}

/// From Wi-Fi to LTE: the client's check arrives by a path that nobody has used, and its media follows a round trip later.
#[test]
fn a_migration_takes_one_round_trip() {
    for one_way_ms in [1, 5, 20, 40] {
        let mut client = Client::new(Role::Client, [true; PAIRS.len()], 0);
        client.nominate(0);
        assert!(client.connects_within(PATIENCE));
        client.media(0);
        client.sent.clear();
        client.nominate(1);
        client.now = client.now + Duration::from_millis(2 * one_way_ms);
        assert_eq!(client.server.media_tuple(), Some(&pair(0)));
        client.answer_checks();
        assert_eq!(client.server.media_tuple(), Some(&pair(1)));
    }
}

/// A client that writes somebody else's address into its checks: 100 bytes had an hour of media sent there.
#[test]
fn nothing_but_answers_and_a_few_requests_goes_where_nobody_answers() {
    let mut client = Client::new(Role::Client, [true, false, false], 0);
    client.nominate(0);
    assert!(client.connects_within(PATIENCE));
    client.media(0);
    client.sent.clear();
    let (mut asked, mut answers, mut requests) = (0, 0, 0);
    for round in 0..1_000 {
        if round % 2 == 0 {
            asked += client.nominate(1);
        }
        client.media(1);
        client.step();
        for (number, bytes) in std::mem::take(&mut client.sent) {
            if number == 1 {
                answers += bytes.len() * usize::from(bytes[0] == 1);
                requests += bytes.len() * usize::from(bytes[0] == 0);
            }
            assert!(bytes[0] < 2, "nothing but STUN");
        }
        assert_eq!(client.server.media_tuple(), Some(&pair(0)));
    }
    // Five seconds: four series of four requests of 28 bytes.
    assert!(
        answers < asked && requests <= 4 * 4 * 28,
        "{answers} and {requests} for {asked}"
    );
}

/// The end of a handshake says that all of it was received, and not by whom.
#[test]
fn a_handshake_that_went_by_two_paths_proves_neither() {
    for leads_back in [true, false] {
        let mut client = Client::new(Role::Client, [true, leads_back, true], 0);
        client.nominate(0);
        client.nominate(1);
        while client.sent.iter().all(|(_, bytes)| bytes.len() < 200) {
            client.step();
        }
        // It has the server's flight, and sends its own from elsewhere.
        client.used = 1;
        client.step();
        while client.server.dtls_state() != State::Connected {
            client.step();
        }
        assert_eq!(client.server.selected_tuple(), Some(&pair(1)));
        assert_eq!(client.server.media_tuple(), None);
        client.answer_checks();
        assert_eq!(client.server.media_tuple().is_some(), leads_back);
    }
}

/// What the peer answers last, it has received, and if that went by one path only, then by that one.
#[test]
fn a_client_that_answers_no_check_is_proven_by_the_end_of_its_handshake() {
    for role in [Role::Client, Role::Server] {
        for order in ORDERS {
            for used in 0..PAIRS.len() {
                let mut leads_back = [false; PAIRS.len()];
                leads_back[used] = true;
                let mut client = Client::new(role, leads_back, used);
                client.answers = false;
                for number in order {
                    client.nominate(number);
                }
                assert!(client.connects_within(PATIENCE), "{role:?} {order:?} {used}");
                assert_eq!(client.server.media_tuple(), Some(&pair(used)), "{role:?} {order:?}");
            }
        }
    }
    // Its first message was answered by a path that does not lead back.
    let mut client = Client::new(Role::Client, [false, false, true], 0);
    client.answers = false;
    for number in 0..PAIRS.len() {
        client.nominate(number);
    }
    let now = client.now;
    for hello in client.dtls.drive(now, None) {
        client.deliver(0, &hello);
    }
    client.used = 2;
    assert!(client.connects_within(2 * PATIENCE));
    assert_eq!(client.server.media_tuple(), Some(&pair(2)));
}

/// Who has the flight by one path, and asks for it once more by another, which may be anybody's.
#[test]
fn a_flight_that_was_repeated_elsewhere_proves_neither_path() {
    for shown in [true, false] {
        let mut client = Client::new(Role::Client, [true, false, false], 0);
        client.answers = false;
        client.nominate(0);
        client.nominate(1);
        let mut hello = Vec::new();
        while client.sent.iter().all(|(_, bytes)| bytes.len() < 200) {
            client.now = client.now + Duration::from_millis(5);
            let arrived: Vec<_> = std::mem::take(&mut client.sent);
            let mut datagrams = vec![None];
            datagrams.extend(
                arrived
                    .into_iter()
                    .filter(|(_, bytes)| bytes[0] >= 20)
                    .map(|(_, bytes)| Some(bytes)),
            );
            let now = client.now;
            for datagram in datagrams {
                for bytes in client.dtls.drive(now, datagram.as_deref()) {
                    client.deliver(0, &bytes);
                    hello = bytes;
                }
            }
        }
        let flight = std::mem::take(&mut client.sent);
        if shown {
            client.now = client.now + Duration::from_millis(600);
            client.deliver(1, &hello);
            assert!(client.dtls_sent_by().contains(&1), "it was sent again");
        }
        client.sent = flight;
        while client.server.dtls_state() != State::Connected {
            client.step();
        }
        assert_eq!(client.server.media_tuple(), (!shown).then(|| pair(0)).as_ref());
    }
}
