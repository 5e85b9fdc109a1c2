//! No media goes where nobody has shown to receive it (RFC 7675 §1): checks of ours, replays, and what checks may cost.

use super::*;

/// A peer whose handshake has ended by tuple 1, and that has moved nowhere yet.
fn connected() -> Agent {
    let mut agent = Agent::new(credentials(1));
    check(&mut agent, at(0), 1, NOMINATING);
    agent.prove(&tuple(1));
    agent.on_traffic(at(0), &tuple(1));
    agent.begin_asking(at(0));
    assert_eq!(agent.proven(), Some(&tuple(1)));
    assert_eq!(asks(&mut agent, at(0)), [], "the handshake has proven it");
    agent
}

fn handle(agent: &mut Agent, now: Time, number: u8, bytes: &[u8]) -> Checked {
    agent.handle_stun(now, tuple(number), bytes, &mut Vec::new())
}

#[test]
fn a_peer_that_moves_is_asked_at_once_and_followed_when_it_answers() {
    let mut agent = connected();
    assert_eq!(check(&mut agent, at(1_000), 2, NOMINATING), []);
    let asked = asks(&mut agent, at(1_000));
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].0, tuple(2));
    assert_eq!(agent.proven(), Some(&tuple(1)));
    // Its traffic does not say that it receives ours.
    agent.on_traffic(at(1_030), &tuple(2));
    assert_eq!(agent.selected(), Some(&tuple(1)));
    let answered = handle(&mut agent, at(1_060), 2, &answer_to(asked[0].1));
    assert_eq!(answered, Checked::Answered);
    assert_eq!(events(&mut agent), [Event::Selected(Some(tuple(2)))]);
    assert_eq!(agent.proven(), Some(&tuple(2)));
    // And back, where it is known to receive.
    check(
        &mut agent,
        at(3_000),
        1,
        Check {
            transaction: 1,
            ..NOMINATING
        },
    );
    agent.on_traffic(at(3_001), &tuple(1));
    assert_eq!(agent.proven(), Some(&tuple(1)));
    assert_eq!(asks(&mut agent, at(3_001)), []);
}

#[test]
fn a_spare_path_is_asked_with_its_first_check_and_used_without_a_wait() {
    let mut agent = connected();
    check(&mut agent, at(100), 2, PLAIN);
    let asked = asks(&mut agent, at(100));
    handle(&mut agent, at(160), 2, &answer_to(asked[0].1));
    assert_eq!(agent.selected(), Some(&tuple(1)));
    check(&mut agent, at(9_000), 2, NOMINATING);
    assert_eq!(agent.proven(), Some(&tuple(2)));
}

/// The source address of a check is whatever its sender writes there.
#[test]
fn who_does_not_answer_gets_no_media_and_few_requests() {
    let mut agent = connected();
    let mut sent = 0;
    for ms in 0..10_000 {
        let now = at(1_000 + ms);
        agent.handle_timeout(now);
        if ms % 10 == 0 {
            let transaction = 1 + (ms / 10 % 200) as u8;
            check(
                &mut agent,
                now,
                2,
                Check {
                    transaction,
                    ..NOMINATING
                },
            );
        }
        if ms % 500 == 0 {
            check(
                &mut agent,
                now,
                1,
                Check {
                    transaction: 7,
                    ..PLAIN
                },
            );
        }
        sent += asks(&mut agent, now).len();
        assert_ne!(agent.proven(), Some(&tuple(2)));
    }
    // Four in 1.5 s; each is 28 bytes, and a check of the peer's at least 90.
    assert!((20..=28).contains(&sent), "{sent}");
    assert_eq!(agent.proven(), Some(&tuple(1)));
}

#[test]
fn lost_requests_are_sent_again_and_a_late_answer_counts() {
    let mut agent = connected();
    check(&mut agent, at(1_000), 2, NOMINATING);
    let mut asked = Vec::new();
    for ms in 1_000..1_800 {
        agent.handle_timeout(at(ms));
        asked.extend(
            asks(&mut agent, at(ms))
                .into_iter()
                .map(|(_, transaction)| (ms, transaction)),
        );
    }
    let times: Vec<u64> = asked.iter().map(|(ms, _)| *ms).collect();
    assert_eq!(times, [1_000, 1_100, 1_300, 1_700]);
    assert!(asked.iter().all(|(_, transaction)| *transaction == asked[0].1));
    handle(&mut agent, at(2_400), 2, &answer_to(asked[0].1));
    assert_eq!(agent.proven(), Some(&tuple(2)));
}

/// Satellites, and links that keep seconds of packets in a queue.
#[test]
fn an_answer_that_takes_four_seconds_counts() {
    for (first_lost, round_trip_ms) in [(0, 4_000), (3, 4_000), (1, 1_600), (3, 2_500)] {
        let mut agent = connected();
        let mut asked = Vec::new();
        for ms in (1_000..6_000).step_by(50) {
            agent.handle_timeout(at(ms));
            if ms % 500 == 0 {
                let transaction = (ms / 500) as u8;
                let again = Check {
                    transaction,
                    ..NOMINATING
                };
                check(&mut agent, at(ms), 2, again);
            }
            asked.extend(asks(&mut agent, at(ms)).into_iter().map(|(_, id)| (ms, id)));
            let answered = asked.get(first_lost).filter(|(then, _)| ms == then + round_trip_ms);
            if let Some((_, transaction)) = answered {
                assert_eq!(
                    handle(&mut agent, at(ms), 2, &answer_to(*transaction)),
                    Checked::Answered
                );
                break;
            }
        }
        assert_eq!(agent.proven(), Some(&tuple(2)), "{first_lost} {round_trip_ms}");
    }
}

#[test]
fn an_answer_that_comes_when_the_peer_may_be_back_moves_nothing_by_itself() {
    let mut agent = connected();
    check(&mut agent, at(1_000), 2, NOMINATING);
    let asked = asks(&mut agent, at(1_000));
    handle(&mut agent, at(6_001), 2, &answer_to(asked[0].1));
    assert_eq!(agent.proven(), Some(&tuple(1)));
    // What it does next decides.
    agent.on_traffic(at(6_100), &tuple(2));
    agent.on_traffic(at(6_200), &tuple(2));
    assert_eq!(agent.proven(), Some(&tuple(2)));
}

/// RFC 8489 §9.1.3: a request without credentials is answered with 400, also by an agent that asks so itself.
#[test]
fn two_that_ask_without_credentials_answer_each_other() {
    let mut agent = connected();
    let mut other = Agent::new(credentials(2));
    check(&mut agent, at(1_000), 2, NOMINATING);
    let (mut request, mut answer) = (Vec::new(), Vec::new());
    assert_eq!(agent.poll_check(at(1_000), &mut request), Some(tuple(2)));
    let taken = other.handle_stun(at(1_010), tuple(9), &request, &mut answer);
    assert_eq!(taken, Checked::Refused(Refusal::BadRequest));
    assert_eq!(handle(&mut agent, at(1_020), 2, &answer), Checked::Answered);
    assert_eq!(agent.proven(), Some(&tuple(2)));
    assert_eq!(other.state(), State::New, "such a request selects nothing");
}

/// A response in a transaction, made with a password or without.
fn response(class: Class, transaction: TransactionId, password_of: Option<&Credentials>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, class, BINDING, transaction);
    if let Some(credentials) = password_of {
        writer = writer.integrity(credentials.key());
    }
    writer.fingerprint();
    bytes
}

/// RFC 8445 §7.2.2: `<theirs>:<ours>`, with their password. Agents that leave a request without them unanswered answer this one.
#[test]
fn a_peer_whose_credentials_are_known_is_asked_with_them_and_only_it_can_answer() {
    let mut agent = connected();
    let theirs = credentials(7);
    agent.set_remote(at(500), theirs.clone());
    check(&mut agent, at(1_000), 2, NOMINATING);
    let mut request = Vec::new();
    assert_eq!(agent.poll_check(at(1_000), &mut request), Some(tuple(2)));
    let message = Message::parse(&request).unwrap();
    let username = format!(
        "{}:{}",
        theirs.username_fragment(),
        agent.credentials().username_fragment()
    );
    assert_eq!(message.username, Some(username.as_bytes()));
    assert!(message.is_intact() && message.is_authentic(theirs.key()));
    assert!(message.controlled && !message.controlling && message.priority.is_some());
    let transaction = message.transaction;
    // An agent that is the victim, a STUN server, and who has another password.
    for bytes in [
        answer_to(transaction),
        response(Class::Success, transaction, None),
        response(Class::Success, transaction, Some(&credentials(8))),
    ] {
        assert_eq!(handle(&mut agent, at(1_050), 2, &bytes), Checked::Ignored);
    }
    let answer = response(Class::Success, transaction, Some(&theirs));
    assert_eq!(
        handle(&mut agent, at(1_060), 1, &answer),
        Checked::Ignored,
        "from elsewhere"
    );
    assert_eq!(handle(&mut agent, at(1_060), 2, &answer), Checked::Answered);
    assert_eq!(agent.proven(), Some(&tuple(2)));
}

#[test]
fn credentials_that_come_late_are_asked_with_at_once_and_end_with_a_restart() {
    let mut agent = connected();
    check(&mut agent, at(1_000), 2, NOMINATING);
    let without = asks(&mut agent, at(1_000))[0].1;
    let theirs = credentials(7);
    agent.set_remote(at(1_010), theirs.clone());
    let mut request = Vec::new();
    assert_eq!(agent.poll_check(at(1_010), &mut request), Some(tuple(2)));
    let with = Message::parse(&request).unwrap().transaction;
    assert_eq!(handle(&mut agent, at(1_020), 2, &answer_to(without)), Checked::Ignored);
    // RFC 8839 §4.4.1.1.1: both sides change theirs.
    agent.restart(credentials(3));
    let authentic = response(Class::Success, with, Some(&theirs));
    assert_eq!(handle(&mut agent, at(1_030), 2, &authentic), Checked::Ignored);
    check(&mut agent, at(1_040), 2, NOMINATING);
    let asked = asks(&mut agent, at(1_040));
    assert_eq!(
        handle(&mut agent, at(1_050), 2, &answer_to(asked[0].1)),
        Checked::Answered
    );
    assert_eq!(agent.proven(), Some(&tuple(2)));
}

/// On a shared port, who can forge addresses and knows another transport's password would otherwise take a tuple away.
#[test]
fn a_tuple_is_kept_where_the_handshake_went_and_the_peer_still_is() {
    let mut agent = connected();
    assert!(agent.keeps(at(1_999), &tuple(1)) && !agent.keeps(at(2_000), &tuple(1)));
    agent.on_traffic(at(5_000), &tuple(1));
    assert!(agent.keeps(at(6_999), &tuple(1)));
    check(
        &mut agent,
        at(9_000),
        1,
        Check {
            transaction: 2,
            ..PLAIN
        },
    );
    assert!(agent.keeps(at(10_999), &tuple(1)) && !agent.keeps(at(11_000), &tuple(1)));
    // Proven by an answer to a check, which anybody's agent may give.
    check(&mut agent, at(11_000), 2, NOMINATING);
    let asked = asks(&mut agent, at(11_000));
    handle(&mut agent, at(11_010), 2, &answer_to(asked[0].1));
    assert_eq!(agent.proven(), Some(&tuple(2)));
    assert!(!agent.keeps(at(11_011), &tuple(2)));
}

#[test]
fn an_echo_of_what_went_by_a_path_alone_proves_it() {
    let mut agent = connected();
    check(&mut agent, at(1_000), 2, NOMINATING);
    agent.on_proven(at(1_100), &tuple(3));
    assert_eq!(agent.proven(), Some(&tuple(1)));
    agent.on_proven(at(1_100), &tuple(2));
    assert_eq!(agent.proven(), Some(&tuple(2)));
}

#[test]
fn what_is_no_answer_proves_nothing() {
    let mut agent = connected();
    check(&mut agent, at(1_000), 2, NOMINATING);
    let (_, transaction) = asks(&mut agent, at(1_000))[0];
    let response = |class, method, transaction| {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes, class, method, transaction).fingerprint();
        bytes
    };
    let mut guessed = transaction;
    guessed[11] ^= 1;
    let mut broken = answer_to(transaction);
    *broken.last_mut().unwrap() ^= 1;
    let rows = [
        // From another address: who answers for somebody else.
        (3, answer_to(transaction)),
        (1, answer_to(transaction)),
        (2, answer_to(guessed)),
        (2, broken),
        // A STUN server, which answers everybody.
        (2, response(Class::Success, BINDING, transaction)),
        (2, response(Class::Indication, BINDING, transaction)),
        (2, response(Class::Error, 3, transaction)),
    ];
    for (number, bytes) in rows {
        assert_eq!(handle(&mut agent, at(1_050), number, &bytes), Checked::Ignored);
        assert_eq!(agent.proven(), Some(&tuple(1)));
    }
    assert_eq!(
        handle(&mut agent, at(1_060), 2, &answer_to(transaction)),
        Checked::Answered
    );
    // Nor is an answer an answer twice, or one to what nobody has asked.
    assert_eq!(
        handle(&mut agent, at(1_070), 2, &answer_to(transaction)),
        Checked::Ignored
    );
    assert_eq!(
        handle(&mut agent, at(1_070), 1, &answer_to(transaction)),
        Checked::Ignored
    );
}

/// RFC 8489 §9.1.5: STUN has no protection against replay. Who answers for the address that he writes there gets nothing either.
#[test]
fn a_check_that_is_replayed_from_elsewhere_moves_nothing() {
    let mut agent = connected();
    let ours = agent.credentials().clone();
    for nomination in [None, Some(7)] {
        let what = Check {
            nomination,
            transaction: 1 + nomination.is_some() as u8,
            ..NOMINATING
        };
        let bytes = request_by(1, &ours, what);
        assert_eq!(handle(&mut agent, at(1_000), 1, &bytes), Checked::Accepted);
        for number in 2..30 {
            assert_eq!(handle(&mut agent, at(1_001), number, &bytes), Checked::Replayed);
            assert!(!agent.is_valid(&tuple(number)));
        }
        assert_eq!(
            handle(&mut agent, at(1_100), 1, &bytes),
            Checked::Accepted,
            "sent again"
        );
    }
    assert_eq!(asks(&mut agent, at(1_100)), []);
    assert_eq!((agent.selected(), agent.paths.len()), (Some(&tuple(1)), 1));
}

#[test]
fn a_connection_leads_back() {
    let mut agent = connected();
    let connection = Tuple {
        protocol: Protocol::Tcp,
        ..tuple(2)
    };
    let bytes = request_by(2, &agent.credentials().clone(), NOMINATING);
    agent.handle_stun(at(1_000), connection, &bytes, &mut Vec::new());
    assert_eq!(agent.proven(), Some(&connection));
    assert_eq!(asks(&mut agent, at(1_000)), []);
}

#[test]
fn nobody_is_asked_before_media_may_flow() {
    let mut agent = Agent::new(credentials(1));
    for number in 1..=3 {
        check(&mut agent, at(0), number, NOMINATING);
    }
    assert_eq!((asks(&mut agent, at(0)), agent.proven()), (vec![], None));
    // The handshake went by several: nobody knows which of them lead back.
    agent.on_traffic(at(10), &tuple(2));
    agent.begin_asking(at(10));
    let asked = asks(&mut agent, at(10));
    let to: Vec<Tuple> = asked.iter().map(|(to, _)| *to).collect();
    assert_eq!((to, agent.proven()), ([1, 2, 3].map(tuple).to_vec(), None));
    handle(&mut agent, at(20), 2, &answer_to(asked[1].1));
    assert_eq!(agent.proven(), Some(&tuple(2)));
}

#[test]
fn what_the_handshake_has_proven_stays_proven() {
    let mut agent = connected();
    agent.handle_timeout(at(40_000));
    assert_eq!(agent.state(), State::Disconnected);
    check(
        &mut agent,
        at(50_000),
        1,
        Check {
            transaction: 9,
            ..NOMINATING
        },
    );
    assert_eq!(agent.proven(), Some(&tuple(1)));
}

#[test]
fn when_the_used_path_is_gone_another_one_is_asked() {
    let mut agent = connected();
    check(&mut agent, at(100), 2, PLAIN);
    agent.handle_timeout(at(20_000)); // the peer did not answer
    agent.forget(at(20_000), &tuple(1));
    assert_eq!((agent.selected(), agent.proven()), (Some(&tuple(2)), None));
    let asked = asks(&mut agent, at(20_000));
    handle(&mut agent, at(20_050), 2, &answer_to(asked[0].1));
    assert_eq!(agent.proven(), Some(&tuple(2)));
}

#[test]
fn valid_checks_have_a_budget() {
    let mut agent = connected();
    let bytes = request_by(1, &agent.credentials().clone(), PLAIN);
    let accepted = |agent: &mut Agent, number: u8, bytes: &[u8]| {
        let checks = (0..100_000_u64).map(|check| Time(check * 10_000));
        checks
            .filter(|now| handle(agent, at(5_000) + Duration::from_nanos(now.0), number, bytes) == Checked::Accepted)
            .count()
    };
    // 400 at once and 200 a second, for a second.
    assert!((590..=601).contains(&accepted(&mut agent, 1, &bytes)));
}

/// The user name is no secret: it is in every check.
#[test]
fn who_knows_the_name_only_keeps_no_peer_out() {
    let mut agent = connected();
    let ours = agent.credentials().clone();
    let stranger = Credentials::restore(ours.username_fragment(), "0123456789abcdef0123456789abcdef").unwrap();
    let forged = request(&stranger, PLAIN);
    let mut looked_at = 0;
    for check in 0..100_000_u64 {
        let now = at(5_000) + Duration::from_nanos(check * 10_000);
        let number = 2 + (check % 200) as u8;
        looked_at += usize::from(handle(&mut agent, now, number, &forged) != Checked::Flood);
    }
    assert!(looked_at <= 151, "{looked_at}");
    let bytes = request_by(
        1,
        &ours,
        Check {
            transaction: 5,
            ..PLAIN
        },
    );
    assert_eq!(handle(&mut agent, at(6_000), 1, &bytes), Checked::Accepted);
}

#[test]
fn who_does_not_know_the_name_costs_no_look_at_the_rest() {
    let mut agent = Agent::new(credentials(1));
    let mut unknown = request(&credentials(2), PLAIN);
    *unknown.last_mut().unwrap() ^= 1; // what a look at all of it would find
    let mut answers = 0;
    for _ in 0..1_000 {
        let mut answer = Vec::new();
        match agent.handle_stun(at(0), tuple(1), &unknown, &mut answer) {
            Checked::Malformed(Malformed::Fingerprint) => answers += 1,
            checked => assert_eq!(checked, Checked::Refused(Refusal::Unauthenticated)),
        }
        assert!(answer.is_empty());
    }
    assert_eq!(answers, 20, "as many as may be answered");
    let long = vec![0; stun::MESSAGE_BYTES_MAX + 1];
    assert_eq!(
        handle(&mut agent, at(0), 1, &long),
        Checked::Malformed(Malformed::TooLong)
    );
}
