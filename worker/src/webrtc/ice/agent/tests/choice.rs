//! Which of several pairs is used (RFC 8445 §8.1.1, §12): peers that nominate all, late checks, peers that move, and paths
//! that die.

use super::*;
use crate::webrtc::ice::choice::{HOLD, REBOUND};

/// A nominating check in a transaction of its own.
fn nominating(transaction: u8) -> Check {
    Check {
        transaction,
        ..NOMINATING
    }
}

fn numbered(nomination: u32, transaction: u8) -> Check {
    Check {
        nomination: Some(nomination),
        ..nominating(transaction)
    }
}

/// Traffic that came by a tuple, and what that has changed.
fn traffic(agent: &mut Agent, now: Time, number: u8) -> Vec<Event> {
    let has_changed = agent.on_traffic(now, &tuple(number));
    let events = events(agent);
    assert_eq!(has_changed, !events.is_empty());
    events
}

fn selected(number: u8) -> Vec<Event> {
    vec![Event::Selected(Some(tuple(number)))]
}

/// A peer that has nominated these tuples, and sends by the last of them.
fn using_the_last_of(numbers: &[u8]) -> Agent {
    let mut agent = Agent::new(credentials(1));
    for number in numbers {
        check(&mut agent, at(0), *number, NOMINATING);
    }
    let last = numbers[numbers.len() - 1];
    traffic(&mut agent, at(0), last);
    assert_eq!(agent.selected(), Some(&tuple(last)));
    agent
}

#[test]
fn of_pairs_that_are_all_nominated_the_first_traffic_decides() {
    for used in 1..=3 {
        let mut agent = Agent::new(credentials(1));
        for number in [1, 2, 3] {
            check(&mut agent, at(0), number, NOMINATING);
        }
        assert_eq!(!traffic(&mut agent, at(40), used).is_empty(), used != 3);
        assert_eq!(
            (agent.selected(), agent.state()),
            (Some(&tuple(used)), State::Completed)
        );
        // What is sent again because its answer does not get through moves nothing, in whatever transaction.
        for round in 0..50 {
            let now = at(100 + 100 * u64::from(round));
            for number in [1, 2, 3] {
                assert_eq!(check(&mut agent, now, number, nominating(round)), []);
                assert_eq!(traffic(&mut agent, now, used), []);
            }
        }
    }
}

#[test]
fn a_late_nominating_check_takes_nothing_from_the_pair_in_use() {
    let mut agent = using_the_last_of(&[1, 2]);
    assert_eq!(check(&mut agent, at(3_000), 1, nominating(1)), []);
    // The network has it twice.
    assert_eq!(check(&mut agent, at(3_500), 1, nominating(1)), []);
    // A queue of them on the old way.
    let mut agent = using_the_last_of(&[1, 2]);
    for transaction in 1..20 {
        assert_eq!(check(&mut agent, at(500), 1, nominating(transaction)), []);
    }
    // The peer only receives, and asks for consent every few seconds; each time another late check comes.
    for round in 2..20 {
        let now = u64::from(round) * 6_000;
        check(&mut agent, at(now), 2, nominating(round));
        assert_eq!(check(&mut agent, at(now + 5_900), 1, nominating(round)), []);
    }
    assert_eq!(agent.selected(), Some(&tuple(2)));
}

#[test]
fn a_peer_that_moves_is_followed_at_once() {
    let mut agent = using_the_last_of(&[1]);
    // Its new network was a spare one until now, or is one that nobody has heard of.
    check(&mut agent, at(1_000), 2, PLAIN);
    for (number, now) in [(2, 9_000), (3, 9_020)] {
        traffic(&mut agent, at(now - 1), number - 1);
        assert_eq!(check(&mut agent, at(now), number, NOMINATING), selected(number));
        // What was on its way by the old one does not take it back.
        assert_eq!(traffic(&mut agent, at(now + 1), number - 1), []);
        assert_eq!(traffic(&mut agent, at(now + 15), number), []);
    }
}

#[test]
fn a_peer_that_moves_back_is_followed_at_its_second_sign() {
    let mut agent = using_the_last_of(&[1, 2]);
    assert_eq!(check(&mut agent, at(1_000), 1, nominating(1)), []);
    assert_eq!(traffic(&mut agent, at(1_001), 1), selected(1));
    // One that sends nothing nominates again.
    assert_eq!(check(&mut agent, at(2_000), 2, nominating(1)), []);
    assert_eq!(check(&mut agent, at(2_050), 2, nominating(2)), []);
    assert_eq!(check(&mut agent, at(2_100), 2, nominating(3)), selected(2));
    // Traffic first, and then the check.
    assert_eq!(traffic(&mut agent, at(3_000), 1), []);
    assert_eq!(check(&mut agent, at(3_001), 1, nominating(3)), selected(1));
}

#[test]
fn traffic_alone_moves_after_a_while_and_only_if_none_comes_by_the_pair_in_use() {
    let mut agent = using_the_last_of(&[1, 2]);
    let hold = HOLD.as_millis() as u64;
    // Two networks between which packets overtake each other.
    for now in 1..1_000 {
        assert_eq!(traffic(&mut agent, at(now), 1 + (now / 20 % 2) as u8), []);
    }
    traffic(&mut agent, at(1_000), 2);
    assert_eq!(traffic(&mut agent, at(2_000), 1), []);
    assert_eq!(traffic(&mut agent, at(2_000 + hold - 1), 1), []);
    assert_eq!(traffic(&mut agent, at(2_000 + hold), 1), selected(1));
}

#[test]
fn a_pair_that_was_nominated_and_does_not_lead_back_is_left_again() {
    let mut agent = using_the_last_of(&[1]);
    check(&mut agent, at(1_000), 2, NOMINATING);
    // The peer's check was not answered, so it stays where it was, and sends the check again.
    let mut reported = Vec::new();
    for now in (1_000..1_500).step_by(20) {
        reported.extend(traffic(&mut agent, at(now), 1));
        reported.extend(check(&mut agent, at(now), 2, NOMINATING));
    }
    assert_eq!(reported, selected(1));
}

#[test]
fn a_pair_that_is_not_nominated_takes_nothing_from_one_that_is_until_that_is_silent() {
    let mut agent = using_the_last_of(&[1]);
    check(&mut agent, at(0), 2, PLAIN);
    // And that for a moment: its NAT may have given it another address.
    let silent = (REBOUND + HOLD).as_millis() as u64;
    for now in (0..silent).step_by(20) {
        assert_eq!(traffic(&mut agent, at(now), 2), []);
    }
    assert_eq!(
        traffic(&mut agent, at(silent), 2),
        [Event::Selected(Some(tuple(2))), Event::State(State::Connected)]
    );
    // And whoever nominates one then has that.
    assert_eq!(
        check(&mut agent, at(silent), 3, NOMINATING),
        [Event::Selected(Some(tuple(3))), Event::State(State::Completed)]
    );
}

#[test]
fn an_equal_nomination_moves_nothing() {
    // draft-thatcher-ice-renomination §4: the highest value counts.
    let mut agent = Agent::new(credentials(1));
    check(&mut agent, at(0), 1, numbered(3, 0));
    assert_eq!(check(&mut agent, at(1), 2, numbered(3, 1)), []);
    assert_eq!(check(&mut agent, at(2), 2, numbered(3, 2)), []);
    traffic(&mut agent, at(3), 1);
    for transaction in 3..9 {
        assert_eq!(check(&mut agent, at(4), 2, numbered(3, transaction)), []);
        assert_eq!(check(&mut agent, at(4), 2, numbered(2, transaction)), []);
    }
    assert_eq!(check(&mut agent, at(5), 2, numbered(4, 1)), selected(2));
}

#[test]
fn what_comes_from_where_no_check_came_from_selects_nothing() {
    let mut agent = using_the_last_of(&[1]);
    for now in (0..60_000).step_by(20) {
        assert_eq!(traffic(&mut agent, at(now), 9), []);
    }
    let mut agent = Agent::new(credentials(1));
    assert_eq!(traffic(&mut agent, at(0), 1), []);
    assert_eq!((agent.state(), agent.selected()), (State::New, None));
}

#[test]
fn after_a_restart_the_first_traffic_by_the_new_pairs_decides() {
    let mut agent = using_the_last_of(&[1, 2]);
    agent.restart(credentials(2));
    // The peer does not know yet: everything is as before.
    assert_eq!(traffic(&mut agent, at(1_000), 1), []);
    assert_eq!(traffic(&mut agent, at(1_000) + HOLD, 1), selected(1));
    assert_eq!(check(&mut agent, at(2_000), 3, NOMINATING), selected(3));
    assert_eq!(check(&mut agent, at(2_001), 4, NOMINATING), selected(4));
    // What was on its way.
    for now in 2_001..2_500 {
        assert_eq!(traffic(&mut agent, at(now), 1), []);
    }
    assert_eq!(traffic(&mut agent, at(2_500), 3), selected(3));
    assert_eq!(check(&mut agent, at(2_600), 4, nominating(1)), []);
}

#[test]
fn when_the_pair_in_use_dies_the_one_that_was_used_last_takes_over() {
    let mut agent = using_the_last_of(&[1, 2, 3]);
    traffic(&mut agent, at(10), 1);
    check(&mut agent, at(50), 2, PLAIN);
    check(&mut agent, at(60), 4, PLAIN);
    agent.forget(at(60_000), &tuple(3));
    assert_eq!(events(&mut agent), selected(1));
}

/// STUN has no protection against replay: who has seen one nominating check can send it from anywhere, and as often as there is room for
/// tuples. The peer's own way stays known, and its next traffic leads back.
#[test]
fn replayed_checks_from_everywhere_do_not_evict_the_pair_in_use() {
    let mut agent = using_the_last_of(&[1]);
    for number in 10..40 {
        check(&mut agent, at(1_000), number, NOMINATING);
    }
    assert!(agent.is_valid(&tuple(1)));
    traffic(&mut agent, at(1_010), 1);
    traffic(&mut agent, at(1_010 + HOLD.as_millis() as u64), 1);
    assert_eq!(agent.selected(), Some(&tuple(1)));
}

/// RFC 7675 §5.1: consent is asked for by plain checks; who nominates once and then only asks is not silent.
#[test]
fn plain_checks_keep_the_pair_in_use_from_being_silent() {
    let mut agent = using_the_last_of(&[1, 2]);
    let plain = |transaction| Check {
        nominates: false,
        ..nominating(transaction)
    };
    for round in 1..10 {
        let now = at(5_000 * u64::from(round));
        assert_eq!(check(&mut agent, now, 2, plain(round)), []);
        // A nominating check of the other that was kept on the way.
        assert_eq!(check(&mut agent, now + HOLD, 1, nominating(round)), []);
        assert_eq!(agent.selected(), Some(&tuple(2)));
        // The peer shows that it uses the other one.
        traffic(&mut agent, now + HOLD, 2);
    }
}

/// A NAT that gives the peer another address: the peer knows nothing of it, and does not nominate anew.
#[test]
fn traffic_from_a_new_address_is_followed_when_the_old_one_is_silent() {
    let mut agent = using_the_last_of(&[1]);
    let plain = Check {
        nominates: false,
        ..nominating(9)
    };
    assert_eq!(check(&mut agent, at(100), 2, plain), []);
    for ms in (100..1_000).step_by(20) {
        assert_eq!(traffic(&mut agent, at(ms), 2), []);
    }
    for ms in (1_000..1_200).step_by(20) {
        traffic(&mut agent, at(ms), 2);
    }
    assert_eq!(agent.selected(), Some(&tuple(2)));
}
