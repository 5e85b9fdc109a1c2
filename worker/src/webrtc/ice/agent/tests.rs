//! Checks, tuples and states of a lite agent, and any history of them.

use super::*;
use crate::webrtc::entropy::SeededEntropy;
use crate::webrtc::ice::Protocol;
use crate::webrtc::stun::{BINDING, TransactionId, attribute};
use proptest::prelude::*;

mod choice;
mod way_back;

/// A peer's tuple, by the last digit of its address.
fn tuple(number: u8) -> Tuple {
    Tuple {
        protocol: Protocol::Udp,
        local: "192.0.2.1:5000".parse().unwrap(),
        remote: format!("198.51.100.{number}:4000").parse().unwrap(),
    }
}

fn credentials(seed: u64) -> Credentials {
    Credentials::generate(&mut SeededEntropy(seed))
}

fn at(ms: u64) -> Time {
    Time::from_millis(ms)
}

/// What a check may have beside the necessary.
#[derive(Clone, Copy, Default)]
struct Check {
    nominates: bool,
    nomination: Option<u32>,
    controlled: bool,
    unknown: Option<u16>,
    /// One that is sent again has the same.
    transaction: u8,
}

const PLAIN: Check = Check {
    nominates: false,
    nomination: None,
    controlled: false,
    unknown: None,
    transaction: 0,
};

const NOMINATING: Check = Check {
    nominates: true,
    ..PLAIN
};

fn request(credentials: &Credentials, check: Check) -> Vec<u8> {
    request_by(0, credentials, check)
}

/// Each path has transactions of its own (RFC 8445 §7.2.4).
fn request_by(number: u8, credentials: &Credentials, check: Check) -> Vec<u8> {
    let mut transaction: TransactionId = *b"transaction!";
    transaction[0] ^= check.transaction;
    transaction[1] ^= number;
    let mut bytes = Vec::new();
    let username = format!("{}:theirs", credentials.username_fragment());
    let mut writer = Writer::new(&mut bytes, Class::Request, BINDING, transaction)
        .attribute(attribute::USERNAME, username.as_bytes())
        .attribute(attribute::PRIORITY, &[0x6e, 0, 1, 0xff]);
    let role = if check.controlled {
        attribute::ICE_CONTROLLED
    } else {
        attribute::ICE_CONTROLLING
    };
    writer = writer.attribute(role, &[7; 8]);
    if check.nominates {
        writer = writer.attribute(attribute::USE_CANDIDATE, &[]);
    }
    if let Some(nomination) = check.nomination {
        writer = writer.attribute(attribute::NOMINATION, &nomination.to_be_bytes());
    }
    if let Some(unknown) = check.unknown {
        writer = writer.attribute(unknown, &[1, 2, 3]);
    }
    writer.integrity(credentials.key()).fingerprint();
    bytes
}

/// Everything that the agent has to tell.
fn events(agent: &mut Agent) -> Vec<Event> {
    std::iter::from_fn(|| agent.poll_event()).collect()
}

fn check(agent: &mut Agent, now: Time, number: u8, check: Check) -> Vec<Event> {
    let bytes = request_by(number, &agent.credentials().clone(), check);
    let mut answer = Vec::new();
    assert_eq!(
        agent.handle_stun(now, tuple(number), &bytes, &mut answer),
        Checked::Accepted
    );
    holds(agent);
    events(agent)
}

/// The checks of ours that are due: where to, and in which transaction.
fn asks(agent: &mut Agent, now: Time) -> Vec<(Tuple, TransactionId)> {
    let mut request = Vec::new();
    let mut asks = Vec::new();
    while let Some(to) = agent.poll_check(now, &mut request) {
        let message = Message::parse(&request).unwrap();
        assert_eq!((message.class, message.method), (Class::Request, BINDING));
        assert!(message.is_intact() && message.username.is_none());
        asks.push((to, message.transaction));
    }
    asks
}

/// What an ICE agent answers to a request without credentials (RFC 8489 §9.1.3).
fn answer_to(transaction: TransactionId) -> Vec<u8> {
    let mut answer = Vec::new();
    Writer::new(&mut answer, Class::Error, BINDING, transaction)
        .error_code(400, "Bad Request")
        .fingerprint();
    answer
}

/// The invariants of an agent.
fn holds(agent: &Agent) {
    assert!(agent.paths.len() <= TUPLES_MAX);
    let live = matches!(agent.state, State::Connected | State::Completed);
    assert_eq!(agent.selected().is_some(), live);
    if let Some(selected) = agent.selected().copied() {
        assert!(agent.paths.iter().any(|path| path.tuple == selected));
    }
}

#[test]
fn the_answer_says_where_the_check_came_from() {
    let ours = credentials(1);
    let mut agent = Agent::new(ours.clone());
    let bytes = request(&ours, PLAIN);
    let mut answer = b"what was there before".to_vec();
    assert_eq!(
        agent.handle_stun(at(0), tuple(1), &bytes, &mut answer),
        Checked::Accepted
    );
    let message = Message::parse(&answer).unwrap();
    assert_eq!((message.class, message.method), (Class::Success, BINDING));
    assert_eq!(&message.transaction, b"transaction!");
    assert!(message.is_intact() && message.is_authentic(ours.key()));
    let mut expected = Vec::new();
    Writer::new(&mut expected, Class::Success, BINDING, *b"transaction!")
        .xor_mapped_address(tuple(1).remote)
        .integrity(ours.key())
        .fingerprint();
    assert_eq!(answer, expected);
}

#[test]
fn states_and_selections() {
    use Event::{Selected, State as Is};
    use State::{Completed, Connected};
    // Checks from tuples, and what each changes.
    type Step = (u8, Check, Vec<Event>);
    let rows: &[&[Step]] = &[
        &[
            (1, PLAIN, vec![Selected(Some(tuple(1))), Is(Connected)]),
            (1, PLAIN, vec![]),
            (2, PLAIN, vec![]),
            (1, NOMINATING, vec![Is(Completed)]),
            (1, NOMINATING, vec![]),
            (2, PLAIN, vec![]),
            (2, NOMINATING, vec![Selected(Some(tuple(2)))]),
            (1, PLAIN, vec![]),
        ],
        &[
            (1, NOMINATING, vec![Selected(Some(tuple(1))), Is(Completed)]),
            (2, PLAIN, vec![]),
        ],
        &[
            (1, PLAIN, vec![Selected(Some(tuple(1))), Is(Connected)]),
            (2, NOMINATING, vec![Selected(Some(tuple(2))), Is(Completed)]),
        ],
    ];
    for row in rows {
        let mut agent = Agent::new(credentials(1));
        for (step, (number, what, expected)) in row.iter().enumerate() {
            assert_eq!(check(&mut agent, at(0), *number, *what), *expected, "step {step}");
        }
    }
}

#[test]
fn numbered_nominations_only_go_forward() {
    let mut agent = Agent::new(credentials(1));
    let numbered = |nomination| Check {
        nominates: true,
        nomination: Some(nomination),
        ..PLAIN
    };
    check(&mut agent, at(0), 1, numbered(3));
    check(&mut agent, at(0), 2, numbered(2));
    assert_eq!(agent.selected(), Some(&tuple(1)));
    check(&mut agent, at(0), 2, numbered(4));
    check(&mut agent, at(0), 1, numbered(3));
    assert_eq!(agent.selected(), Some(&tuple(2)));
    // After a restart the peer begins again.
    agent.restart(credentials(2));
    check(&mut agent, at(0), 1, numbered(1));
    assert_eq!(agent.selected(), Some(&tuple(1)));
}

#[test]
fn refusals() {
    let ours = credentials(1);
    let good = request(&ours, PLAIN);
    let without = |kind: u16| {
        let mut bytes = Vec::new();
        let username = format!("{}:theirs", ours.username_fragment());
        let mut writer = Writer::new(&mut bytes, Class::Request, BINDING, [0; 12]);
        if kind != attribute::USERNAME {
            writer = writer.attribute(attribute::USERNAME, username.as_bytes());
        }
        if kind != attribute::PRIORITY {
            writer = writer.attribute(attribute::PRIORITY, &[0; 4]);
        }
        if kind != attribute::MESSAGE_INTEGRITY {
            writer = writer.integrity(ours.key());
        }
        writer.fingerprint();
        if kind == attribute::FINGERPRINT {
            bytes.truncate(bytes.len() - 8);
            let length = (bytes.len() - stun::HEADER_LEN) as u16;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
        }
        bytes
    };
    let other_method = {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes, Class::Request, 3, [0; 12]).fingerprint();
        bytes
    };
    let wrong_password = {
        let theirs = credentials(2);
        let mixed = Credentials::restore(ours.username_fragment(), theirs.password()).unwrap();
        request(&mixed, PLAIN)
    };
    let controlled = Check {
        controlled: true,
        ..NOMINATING
    };
    let unknown = Check {
        unknown: Some(0x7abc),
        ..PLAIN
    };
    let rows = [
        (other_method, Refusal::BadRequest),
        (without(attribute::USERNAME), Refusal::BadRequest),
        (without(attribute::PRIORITY), Refusal::BadRequest),
        (without(attribute::MESSAGE_INTEGRITY), Refusal::BadRequest),
        (without(attribute::FINGERPRINT), Refusal::BadRequest),
        (wrong_password, Refusal::Unauthenticated),
        (request(&credentials(3), PLAIN), Refusal::Unauthenticated),
        (request(&ours, unknown), Refusal::UnknownAttribute),
        (request(&ours, controlled), Refusal::RoleConflict),
    ];
    for (bytes, refusal) in rows {
        let mut agent = Agent::new(ours.clone());
        let mut answer = Vec::new();
        assert_eq!(
            agent.handle_stun(at(0), tuple(1), &bytes, &mut answer),
            Checked::Refused(refusal)
        );
        assert_eq!((agent.state(), events(&mut agent)), (State::New, vec![]));
        assert!(!agent.is_valid(&tuple(1)));
        let message = Message::parse(&answer).unwrap();
        assert_eq!(
            (message.class, message.transaction),
            (Class::Error, {
                let mut transaction = [0; 12];
                transaction.copy_from_slice(&bytes[8..20]);
                transaction
            })
        );
        assert_eq!(answer[20..22], attribute::ERROR_CODE.to_be_bytes());
        assert_eq!(
            answer[26..28],
            [(refusal.code() / 100) as u8, (refusal.code() % 100) as u8]
        );
        let proven = matches!(refusal, Refusal::UnknownAttribute | Refusal::RoleConflict);
        assert_eq!(message.is_authentic(ours.key()), proven, "{refusal:?}");
        assert!(
            answer.len() <= 3 * bytes.len(),
            "{refusal:?}: {} for {}",
            answer.len(),
            bytes.len()
        );
    }
    // What gets no answer at all.
    let silent = |bytes: &[u8]| {
        let mut agent = Agent::new(ours.clone());
        let mut answer = Vec::new();
        let checked = agent.handle_stun(at(0), tuple(1), bytes, &mut answer);
        assert!(answer.is_empty() && events(&mut agent).is_empty());
        checked
    };
    let mut wrong_fingerprint = good.clone();
    *wrong_fingerprint.last_mut().unwrap() ^= 1;
    assert_eq!(silent(&wrong_fingerprint), Checked::Malformed(Malformed::Fingerprint));
    for class in [Class::Indication, Class::Success, Class::Error] {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes, class, BINDING, [0; 12])
            .integrity(ours.key())
            .fingerprint();
        assert_eq!(silent(&bytes), Checked::Ignored);
    }
}

#[test]
fn the_smallest_request_gets_a_small_answer() {
    let mut agent = Agent::new(credentials(1));
    let mut bytes = Vec::new();
    Writer::new(&mut bytes, Class::Request, BINDING, [0; 12]);
    assert_eq!(bytes.len(), stun::HEADER_LEN);
    let mut answer = Vec::new();
    let checked = agent.handle_stun(at(0), tuple(1), &bytes, &mut answer);
    assert_eq!(checked, Checked::Refused(Refusal::BadRequest));
    assert!(answer.len() <= 3 * bytes.len(), "{}", answer.len());
}

#[test]
fn consent_expires() {
    let mut agent = Agent::new(credentials(1));
    assert_eq!(agent.poll_timeout(), None);
    check(&mut agent, at(0), 1, NOMINATING);
    check(&mut agent, at(20_000), 1, PLAIN);
    assert_eq!(agent.poll_timeout(), Some(at(50_000)));
    agent.handle_timeout(at(49_999));
    assert_eq!((agent.state(), events(&mut agent)), (State::Completed, vec![]));
    agent.handle_timeout(at(50_000));
    assert_eq!(
        events(&mut agent),
        [
            Event::Forgotten(tuple(1)),
            Event::Selected(None),
            Event::State(State::Disconnected)
        ]
    );
    assert!(!agent.is_valid(&tuple(1)));
    assert_eq!(agent.poll_timeout(), None);
    // A check revives it.
    let another = Check {
        transaction: 1,
        ..PLAIN
    };
    assert_eq!(
        check(&mut agent, at(60_000), 1, another),
        [Event::Selected(Some(tuple(1))), Event::State(State::Connected)]
    );
}

#[test]
fn what_is_still_checked_takes_over() {
    let mut agent = Agent::new(credentials(1));
    check(&mut agent, at(0), 1, NOMINATING);
    check(&mut agent, at(20_000), 2, PLAIN);
    check(&mut agent, at(21_000), 3, PLAIN);
    agent.handle_timeout(at(30_000));
    assert_eq!(
        events(&mut agent),
        [
            Event::Forgotten(tuple(1)),
            Event::Selected(Some(tuple(3))),
            Event::State(State::Connected)
        ]
    );
    agent.forget(at(60_000), &tuple(3));
    assert_eq!(events(&mut agent), [Event::Selected(Some(tuple(2)))]);
    agent.forget(at(60_000), &tuple(9));
    assert_eq!(events(&mut agent), []);
    agent.forget(at(60_000), &tuple(2));
    assert_eq!(
        events(&mut agent),
        [Event::Selected(None), Event::State(State::Disconnected)]
    );
    holds(&agent);
}

#[test]
fn tuples_are_bounded_and_the_selected_one_stays() {
    let mut agent = Agent::new(credentials(1));
    check(&mut agent, at(0), 0, NOMINATING);
    let mut forgotten = Vec::new();
    for number in 1..=100 {
        forgotten.extend(check(&mut agent, at(u64::from(number)), number, PLAIN));
    }
    assert_eq!(agent.paths.len(), TUPLES_MAX);
    assert_eq!(agent.selected(), Some(&tuple(0)));
    let expected: Vec<_> = (1..=100 - (TUPLES_MAX as u8 - 1))
        .map(|number| Event::Forgotten(tuple(number)))
        .collect();
    assert_eq!(forgotten, expected);
    assert!(agent.is_valid(&tuple(100)) && !agent.is_valid(&tuple(1)));
}

#[test]
fn a_restart_keeps_the_old_tuple_until_the_new_one_is_checked() {
    let old = credentials(1);
    let mut agent = Agent::new(old.clone());
    check(&mut agent, at(0), 1, NOMINATING);
    agent.restart(credentials(2));
    assert_eq!(events(&mut agent), []);
    // Checks of the old session are answered with the old password, and keep its tuple alive.
    let mut answer = Vec::new();
    let checked = agent.handle_stun(at(20_000), tuple(1), &request(&old, PLAIN), &mut answer);
    assert_eq!(checked, Checked::Accepted);
    assert!(Message::parse(&answer).unwrap().is_authentic(old.key()));
    agent.handle_timeout(at(40_000));
    assert_eq!((agent.selected(), agent.state()), (Some(&tuple(1)), State::Completed));
    // So are role conflicts.
    let controlled = Check {
        controlled: true,
        ..PLAIN
    };
    let checked = agent.handle_stun(at(40_000), tuple(1), &request(&old, controlled), &mut answer);
    assert_eq!(checked, Checked::Refused(Refusal::RoleConflict));
    assert!(Message::parse(&answer).unwrap().is_authentic(old.key()));
    // A second restart before the first was noticed changes nothing about that.
    agent.restart(credentials(3));
    let checked = agent.handle_stun(at(41_000), tuple(1), &request(&old, PLAIN), &mut answer);
    assert_eq!(checked, Checked::Accepted);
    let checked = agent.handle_stun(at(41_000), tuple(1), &request(&credentials(2), PLAIN), &mut answer);
    assert_eq!(checked, Checked::Refused(Refusal::Unauthenticated));
    // The new one takes over, and the old password is worth nothing any more.
    assert_eq!(
        check(&mut agent, at(42_000), 2, PLAIN),
        [Event::Selected(Some(tuple(2))), Event::State(State::Connected)]
    );
    let checked = agent.handle_stun(at(43_000), tuple(1), &request(&old, NOMINATING), &mut answer);
    assert_eq!(checked, Checked::Refused(Refusal::Unauthenticated));
    // What is on its way from the old tuple is still taken.
    assert!(agent.is_valid(&tuple(1)));
    assert_eq!(
        check(&mut agent, at(43_000), 2, NOMINATING),
        [Event::State(State::Completed)]
    );
}

#[test]
fn nothing_follows_the_end() {
    let mut agent = Agent::new(credentials(1));
    check(&mut agent, at(0), 1, NOMINATING);
    agent.close();
    assert_eq!(events(&mut agent), [Event::State(State::Closed)]);
    let mut answer = Vec::new();
    let bytes = request(&credentials(1), PLAIN);
    assert_eq!(
        agent.handle_stun(at(1), tuple(1), &bytes, &mut answer),
        Checked::Ignored
    );
    agent.restart(credentials(2));
    agent.handle_timeout(at(100_000));
    agent.forget(at(60_000), &tuple(1));
    agent.close();
    assert!(answer.is_empty());
    assert_eq!((events(&mut agent), agent.poll_timeout()), (vec![], None));
    assert!(!agent.is_valid(&tuple(1)));
    assert_eq!(
        agent.credentials().username_fragment(),
        credentials(1).username_fragment()
    );
}

/// One thing that happens to an agent.
#[derive(Clone, Debug)]
enum Happening {
    Check {
        number: u8,
        old: bool,
        nominates: bool,
        nomination: Option<u32>,
        transaction: u8,
    },
    Junk {
        number: u8,
        bytes: Vec<u8>,
    },
    Traffic {
        number: u8,
    },
    Pass {
        ms: u64,
    },
    Forget {
        number: u8,
    },
    /// The handshake ends by a tuple.
    Prove {
        number: u8,
    },
    /// The peer answers what it has been asked.
    Answer,
    Restart,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (0_u8..12, any::<bool>(), any::<bool>(), prop::option::of(0_u32..4), 0_u8..3).prop_map(
            |(number, old, nominates, nomination, transaction)| {
                Happening::Check { number, old, nominates, nomination, transaction }
            }
        ),
        4 => (0_u8..12).prop_map(|number| Happening::Traffic { number }),
        1 => (0_u8..12, prop::collection::vec(any::<u8>(), 0..60)).prop_map(
            |(number, bytes)| Happening::Junk { number, bytes }
        ),
        2 => (0_u64..20_000).prop_map(|ms| Happening::Pass { ms }),
        1 => (0_u8..12).prop_map(|number| Happening::Forget { number }),
        1 => (0_u8..12).prop_map(|number| Happening::Prove { number }),
        2 => Just(Happening::Answer),
        1 => Just(Happening::Restart),
    ]
}

proptest! {
    /// Whatever happens: the invariants hold, events tell every change, and only a check makes a tuple valid.
    #[test]
    fn any_history(history in prop::collection::vec(happening(), 1..80)) {
        let mut seed = 1;
        let mut old = credentials(seed);
        let mut agent = Agent::new(old.clone());
        let mut now = at(0);
        let (mut state, mut selected) = (State::New, None);
        let (mut answer, mut asked) = (Vec::new(), Vec::new());
        for happening in history {
            let valid: Vec<u8> = (0..12).filter(|number| agent.is_valid(&tuple(*number))).collect();
            let mut checked = None;
            match happening {
                Happening::Check { number, old: use_old, nominates, nomination, transaction } => {
                    let current = agent.credentials().clone();
                    let bytes = request(if use_old { &old } else { &current }, Check { nominates, nomination, transaction, ..PLAIN });
                    if agent.handle_stun(now, tuple(number), &bytes, &mut answer) == Checked::Accepted {
                        checked = Some(number);
                    }
                }
                Happening::Junk { number, bytes } => {
                    agent.handle_stun(now, tuple(number), &bytes, &mut answer);
                }
                Happening::Traffic { number } => {
                    let moved = agent.on_traffic(now, &tuple(number));
                    let is_selected = agent.selected() == Some(&tuple(number));
                    prop_assert!(!moved || is_selected || agent.pending.is_some_and(|pending| pending.tuple == tuple(number)));
                    prop_assert!(moved || selected == agent.selected().copied());
                }
                Happening::Pass { ms } => {
                    now = now + Duration::from_millis(ms);
                    agent.handle_timeout(now);
                }
                Happening::Forget { number } => agent.forget(now, &tuple(number)),
                Happening::Prove { number } => {
                    agent.prove(&tuple(number));
                    agent.begin_asking(now);
                }
                Happening::Answer => {
                    for (to, transaction) in std::mem::take(&mut asked) {
                        agent.handle_stun(now, to, &answer_to(transaction), &mut answer);
                    }
                }
                Happening::Restart => {
                    seed += 1;
                    old = agent.credentials().clone();
                    agent.restart(credentials(seed));
                }
            }
            asked.extend(asks(&mut agent, now));
            for event in events(&mut agent) {
                match event {
                    Event::State(next) => {
                        prop_assert_ne!(state, next);
                        state = next;
                    }
                    Event::Selected(next) => {
                        prop_assert_ne!(selected, next);
                        // From a path that is proven, as long as there is one, only to another that is.
                        let is_left = selected.is_some_and(|left| agent.is_proven(&left));
                        prop_assert!(!is_left || next.is_some_and(|next| agent.is_proven(&next)));
                        selected = next;
                    }
                    Event::Forgotten(_) => {}
                }
            }
            prop_assert_eq!((state, selected), (agent.state(), agent.selected().copied()));
            holds(&agent);
            for number in 0..12 {
                let is_new = agent.is_valid(&tuple(number)) && !valid.contains(&number);
                prop_assert!(!is_new || checked == Some(number));
            }
            prop_assert!(agent.poll_timeout().is_none_or(|deadline| deadline > now));
        }
    }
}
