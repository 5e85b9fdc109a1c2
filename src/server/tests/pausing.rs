//! Pausing and resuming by the application and by clients: the acceptance list of the description of v2 (its appendix B),
//! the steps that a real v2 was recorded at, and races.

use futures::future::join_all;
use serde_json::{Value, json};
use weir_channel::id::ProducerId;
use weir_channel::message::{Method, Notification, Profile, WorkerError};

use super::stage::{Trio, video};
use crate::server::fake::soon;
use crate::server::{EnableOptions, Side};

fn pause_producer(producer: u64) -> Method {
    Method::SetProducerPaused {
        producer: ProducerId(producer),
        paused: true,
    }
}

fn resume_producer(producer: u64) -> Method {
    Method::SetProducerPaused {
        producer: ProducerId(producer),
        paused: false,
    }
}

#[tokio::test]
async fn a_pause_is_one_request_one_notification_one_event() {
    let mut trio = Trio::new().await;
    soon(trio.producer.pause(json!("a"))).await.unwrap();
    soon(trio.producer.pause(json!("b"))).await.unwrap();
    assert!(trio.producer.paused() && trio.producer.locally_paused() && !trio.producer.remotely_paused());
    assert_eq!(trio.stage.requests(), [pause_producer(1)]);
    assert_eq!(
        trio.stage.events(),
        [
            r#"producerPaused producer=1 local "a""#,
            "consumerPaused consumer=1 source",
            "consumerPaused consumer=2 source"
        ]
    );
    // Carol's consumer is not enabled, so her client is told nothing of it.
    assert_eq!(
        trio.told(),
        [
            r#"alice: producerPaused 1 of alice "a""#,
            "bob: consumerPaused 1 of alice"
        ]
    );
}

#[tokio::test]
async fn a_side_takes_back_only_its_own_pause() {
    let mut trio = Trio::new().await;
    let (producer, stage) = (&trio.producer, &mut trio.stage);
    soon(producer.pause_by(Side::Remote, json!({"a": 1}))).await.unwrap();
    stage.forget(&[&trio.alice, &trio.bob]);
    soon(producer.resume(json!("x"))).await.unwrap();
    assert!(producer.paused());
    assert!(stage.requests().is_empty() && stage.events().is_empty());

    // With both flags up, the application's is taken back without the worker, and its client hears of it.
    soon(producer.pause(json!("srv"))).await.unwrap();
    assert_eq!(stage.events(), [r#"producerPaused producer=1 local "srv""#]);
    soon(producer.resume(json!("srv3"))).await.unwrap();
    assert_eq!(stage.events(), [r#"producerResumed producer=1 local "srv3""#]);
    assert!(producer.paused() && producer.remotely_paused());
    assert!(stage.requests().is_empty(), "nothing changed for the worker");
    assert_eq!(
        super::stage::told(&trio.alice),
        [
            r#"alice: producerPaused 1 of alice "srv""#,
            r#"alice: producerResumed 1 of alice "srv3""#
        ]
    );

    soon(producer.pause(Value::Null)).await.unwrap();
    soon(producer.resume_by(Side::Remote, json!("r"))).await.unwrap();
    assert!(producer.paused() && stage.requests().is_empty());
    stage.events();
    soon(producer.resume(Value::Null)).await.unwrap();
    assert_eq!(stage.requests(), [resume_producer(1)]);
    assert_eq!(
        stage.events(),
        [
            "producerResumed producer=1 local",
            "consumerResumed consumer=1 source",
            "consumerResumed consumer=2 source"
        ]
    );
    assert!(!producer.paused());
}

/// Steps 6 to 13 of the recording: what alice's client and the application do to her producer, and who hears what.
#[tokio::test]
async fn a_producer_is_paused_as_recorded() {
    let mut trio = Trio::new().await;
    let producer = trio.producer.clone();
    let step = async |trio: &mut Trio, side: Side, paused: bool, app_data: Value| {
        match paused {
            true => soon(producer.pause_by(side, app_data)).await.unwrap(),
            false => soon(producer.resume_by(side, app_data)).await.unwrap(),
        }
        let told = trio.told();
        let first_event = trio.stage.events().into_iter().next();
        (first_event.unwrap_or_default(), told)
    };
    let quiet: Vec<String> = Vec::new();
    assert_eq!(
        step(&mut trio, Side::Remote, true, json!({"a": 1})).await,
        (
            r#"producerPaused producer=1 remote {"a":1}"#.into(),
            vec!["bob: consumerPaused 1 of alice".to_owned()]
        )
    );
    assert_eq!(
        step(&mut trio, Side::Remote, true, json!(1)).await,
        (String::new(), quiet.clone())
    );
    assert_eq!(
        step(&mut trio, Side::Local, false, json!(1)).await,
        (String::new(), quiet.clone())
    );
    assert_eq!(
        step(&mut trio, Side::Local, true, json!("srv")).await,
        (
            r#"producerPaused producer=1 local "srv""#.into(),
            vec![r#"alice: producerPaused 1 of alice "srv""#.to_owned()]
        )
    );
    assert_eq!(
        step(&mut trio, Side::Local, true, json!("srv2")).await,
        (String::new(), quiet.clone())
    );
    assert_eq!(
        step(&mut trio, Side::Remote, false, json!({"b": 1})).await,
        (r#"producerResumed producer=1 remote {"b":1}"#.into(), quiet.clone())
    );
    assert_eq!(
        step(&mut trio, Side::Remote, false, json!(1)).await,
        (String::new(), quiet.clone())
    );
    assert_eq!(
        step(&mut trio, Side::Local, false, json!("srv3")).await,
        (
            r#"producerResumed producer=1 local "srv3""#.into(),
            vec![
                r#"alice: producerResumed 1 of alice "srv3""#.to_owned(),
                "bob: consumerResumed 1 of alice".to_owned()
            ]
        )
    );
    assert_eq!(trio.stage.requests(), [pause_producer(1), resume_producer(1)]);
}

/// Steps 16 to 25 of the recording: bob's consumer, paused by the application, by bob, and with its source.
#[tokio::test]
async fn a_consumer_is_paused_as_recorded() {
    let mut trio = Trio::new().await;
    let of_bob = trio.of_bob.clone();
    let bobs = |trio: &mut Trio| {
        let events = trio.stage.events();
        let events: Vec<String> = events
            .into_iter()
            .filter(|event| event.contains("consumer=1"))
            .collect();
        (events, super::stage::told(&trio.bob))
    };
    let heard = |event: &str, told: &[&str]| {
        let told = told.iter().map(|line| (*line).to_owned()).collect::<Vec<String>>();
        (vec![event.to_owned()], told)
    };
    soon(of_bob.pause(json!("x"))).await.unwrap();
    assert_eq!(
        bobs(&mut trio),
        heard(
            r#"consumerPaused consumer=1 local "x""#,
            &[r#"bob: consumerPaused 1 of alice "x""#]
        )
    );
    soon(of_bob.pause(json!("x"))).await.unwrap();
    assert_eq!(bobs(&mut trio), (Vec::new(), Vec::new()));
    soon(of_bob.pause_by(Side::Remote, json!("c"))).await.unwrap();
    assert_eq!(bobs(&mut trio), heard(r#"consumerPaused consumer=1 remote "c""#, &[]));
    soon(of_bob.resume(json!("z"))).await.unwrap();
    assert!(of_bob.paused());
    assert_eq!(
        bobs(&mut trio),
        heard(
            r#"consumerResumed consumer=1 local "z""#,
            &[r#"bob: consumerResumed 1 of alice "z""#]
        )
    );
    soon(trio.producer.pause(json!("src"))).await.unwrap();
    assert_eq!(
        bobs(&mut trio),
        heard("consumerPaused consumer=1 source", &["bob: consumerPaused 1 of alice"])
    );
    soon(of_bob.resume_by(Side::Remote, json!("c2"))).await.unwrap();
    assert_eq!(bobs(&mut trio), heard(r#"consumerResumed consumer=1 remote "c2""#, &[]));
    soon(of_bob.pause(json!("q"))).await.unwrap();
    assert_eq!(bobs(&mut trio), heard(r#"consumerPaused consumer=1 local "q""#, &[]));
    soon(trio.producer.resume(json!("src"))).await.unwrap();
    assert_eq!(bobs(&mut trio), heard("consumerResumed consumer=1 source", &[]));
    soon(of_bob.resume(json!("q"))).await.unwrap();
    assert_eq!(
        bobs(&mut trio),
        heard(
            r#"consumerResumed consumer=1 local "q""#,
            &[r#"bob: consumerResumed 1 of alice "q""#]
        )
    );
}

#[tokio::test]
async fn on_what_is_closed_nothing_is_ignored_in_silence() {
    let mut trio = Trio::new().await;
    soon(trio.producer.close(json!("x"))).await.unwrap();
    trio.stage.forget(&[&trio.alice, &trio.bob, &trio.carol]);
    for result in [
        soon(trio.producer.pause(Value::Null)).await,
        soon(trio.producer.resume_by(Side::Remote, Value::Null)).await,
        soon(trio.producer.set_preferred_profile(Profile::Low)).await,
        soon(trio.producer.stats()).await.map(drop),
        soon(trio.producer.get_stats()).await.map(drop),
        soon(trio.of_bob.pause(Value::Null)).await,
        soon(trio.of_bob.request_key_frame()).await,
        soon(trio.of_carol.enable(&trio.receiving, EnableOptions::default())).await,
    ] {
        assert_eq!(result.unwrap_err().code(), "invalidState");
    }
    soon(trio.producer.close(json!("again"))).await.unwrap();
    assert!(trio.stage.requests().is_empty() && trio.stage.events().is_empty() && trio.told().is_empty());
}

#[tokio::test]
async fn a_preferred_profile_is_known_when_accepted_and_told_to_a_consumers_client() {
    let trio = Trio::new().await;
    trio.stage.refuse(WorkerError::InvalidParameters("no".to_owned()));
    soon(trio.producer.set_preferred_profile(Profile::Low))
        .await
        .unwrap_err();
    assert_eq!(trio.producer.preferred_profile(), Profile::Default);
    soon(trio.producer.set_preferred_profile(Profile::Low)).await.unwrap();
    soon(trio.producer.set_preferred_profile(Profile::Low)).await.unwrap();
    assert_eq!(trio.producer.preferred_profile(), Profile::Low);
    assert_eq!(trio.stage.requests().len(), 2, "the refused one and the accepted one");
    assert!(trio.told().is_empty());

    soon(trio.of_bob.set_preferred_profile(Profile::High)).await.unwrap();
    assert_eq!(trio.told(), ["bob: consumerPreferredProfileSet 1 of alice high"]);
    soon(trio.of_bob.set_preferred_profile_by(Side::Remote, Profile::Medium))
        .await
        .unwrap();
    assert!(trio.told().is_empty(), "it was his own wish");
    assert_eq!(trio.of_bob.preferred_profile(), Profile::Medium);
    // Carol's is not enabled: the worker does not know it, her client does.
    trio.stage.requests();
    soon(trio.of_carol.set_preferred_profile(Profile::Low)).await.unwrap();
    assert_eq!(trio.told(), ["carol: consumerPreferredProfileSet 2 of alice low"]);
    assert!(trio.stage.requests().is_empty());
}

#[tokio::test]
async fn a_consumer_made_under_a_paused_producer_knows_it() {
    let trio = Trio::new().await;
    let options = crate::server::ProducerOptions {
        paused: true,
        ..video(2_000)
    };
    let paused = soon(trio.sending.produce(options)).await.unwrap();
    // Whoever says so in the beginning is the client.
    assert!(paused.remotely_paused() && !paused.locally_paused());
    let consumer = trio.bob.consumers().pop().unwrap();
    assert!(consumer.source_paused() && !consumer.paused());
    soon(consumer.enable(&trio.receiving, EnableOptions::default()))
        .await
        .unwrap();
    assert!(consumer.source_paused());
    soon(paused.resume_by(Side::Remote, Value::Null)).await.unwrap();
    assert!(!consumer.source_paused());
}

#[tokio::test]
async fn the_effective_profile_is_told_to_the_client() {
    let mut trio = Trio::new().await;
    let consumer = trio.of_bob.id();
    let profile = Some(Profile::Default);
    let event = trio
        .stage
        .hear(Notification::EffectiveProfileChanged { consumer, profile })
        .await;
    assert_eq!(event, "consumerEffectiveProfileChanged consumer=1 default");
    assert_eq!(trio.told(), ["bob: consumerEffectiveProfileChanged 1 of alice default"]);
    // Of a consumer that it does not know, a worker has nothing to say.
    let waiting = Notification::EffectiveProfileChanged {
        consumer: trio.of_carol.id(),
        profile,
    };
    let again = Notification::EffectiveProfileChanged {
        consumer,
        profile: None,
    };
    trio.stage.hear(again).await;
    trio.told();
    let marker = Notification::EffectiveProfileChanged { consumer, profile };
    let (first, second) = (waiting, marker);
    trio.stage.say(first);
    assert_eq!(
        trio.stage.hear(second).await,
        "consumerEffectiveProfileChanged consumer=1 default"
    );
    assert_eq!(trio.of_carol.effective_profile(), None);
}

#[tokio::test]
async fn whether_a_producer_sends_is_told_to_the_application() {
    let mut trio = Trio::new().await;
    let producer = trio.producer.id();
    for active in [false, true] {
        let event = trio
            .stage
            .hear(Notification::ProducerActivityChanged { producer, active })
            .await;
        let id = serde_json::to_string(&producer).unwrap();
        assert_eq!(event, format!("producerActivityChanged producer={id} active={active}"));
    }
    assert!(trio.told().is_empty(), "clients of v2 know no such notification");
    // Of a producer that is nobody's, a worker has nothing to say.
    trio.stage.say(Notification::ProducerActivityChanged {
        producer: ProducerId(999),
        active: false,
    });
    let event = trio
        .stage
        .hear(Notification::ProducerActivityChanged {
            producer,
            active: false,
        })
        .await;
    assert!(event.starts_with("producerActivityChanged"), "{event}");
}

/// The worker, told to stay paused because of a pause that it refuses, is told otherwise when the last answer is in, also
/// if that is about something else.
#[tokio::test]
async fn a_preference_behind_a_refused_pause_hides_nothing() {
    let trio = Trio::new().await;
    let resumed = |request: &Method| {
        matches!(
            request,
            Method::SetProducerPaused { paused: false, .. } | Method::SetConsumerPaused { paused: false, .. }
        )
    };
    trio.stage.refuse_second(WorkerError::DeadlinePassed);
    let producer = &trio.producer;
    let (local, remote, back, preference) = soon(async {
        tokio::join!(
            producer.pause(Value::Null),
            producer.pause_by(Side::Remote, Value::Null),
            producer.resume(Value::Null),
            producer.set_preferred_profile(Profile::Low),
        )
    })
    .await;
    assert_eq!(remote.unwrap_err().code(), "timeout");
    for accepted in [local, back, preference] {
        accepted.unwrap();
    }
    assert!(!producer.paused());
    // Its answer comes behind that to the correction.
    soon(producer.stats()).await.unwrap();
    assert!(trio.stage.requests().iter().any(resumed));

    trio.stage.refuse_second(WorkerError::DeadlinePassed);
    let consumer = &trio.of_bob;
    let (local, remote, back, preference) = soon(async {
        tokio::join!(
            consumer.pause(Value::Null),
            consumer.pause_by(Side::Remote, Value::Null),
            consumer.resume(Value::Null),
            consumer.set_preferred_profile(Profile::Low),
        )
    })
    .await;
    assert_eq!(remote.unwrap_err().code(), "timeout");
    for accepted in [local, back, preference] {
        accepted.unwrap();
    }
    assert!(!consumer.paused());
    soon(consumer.stats()).await.unwrap();
    assert!(trio.stage.requests().iter().any(resumed));
}

#[tokio::test]
async fn both_sides_at_once_end_where_they_want_whatever_is_refused() {
    let mut trio = Trio::new().await;
    // The remote pause is refused. The resume behind it was asked for as if it were accepted, so the worker was told to
    // stay paused; in the end it is told otherwise.
    trio.stage.refuse(WorkerError::DeadlinePassed);
    let producer = &trio.producer;
    let (remote, local, back) = soon(async {
        tokio::join!(
            producer.pause_by(Side::Remote, json!(1)),
            producer.pause(json!(2)),
            producer.resume(json!(3)),
        )
    })
    .await;
    assert_eq!(remote.unwrap_err().code(), "timeout");
    local.unwrap();
    back.unwrap();
    assert!(!producer.paused());
    // The correction is a request of its own; another call waits behind it.
    soon(producer.pause(json!(4))).await.unwrap();
    soon(producer.resume(json!(5))).await.unwrap();
    let requests = trio.stage.requests();
    assert_eq!(
        requests,
        [
            pause_producer(1),
            pause_producer(1),
            pause_producer(1),
            resume_producer(1),
            pause_producer(1),
            resume_producer(1)
        ]
    );
    assert!(!producer.paused() && !trio.of_bob.source_paused());
    let told = trio.stage.events();
    let of_producer: Vec<&String> = told.iter().filter(|event| event.starts_with("producer")).collect();
    assert_eq!(
        of_producer,
        [
            "producerPaused producer=1 local 2",
            "producerResumed producer=1 local 3",
            "producerPaused producer=1 local 4",
            "producerResumed producer=1 local 5"
        ]
    );
}

#[tokio::test]
async fn many_calls_of_both_sides_agree_with_the_worker() {
    let trio = Trio::new().await;
    for round in 0_u64..50 {
        let calls = (0..20_u64).map(|index| {
            let mixed = (round * 20 + index).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let side = if mixed & 1 == 0 { Side::Local } else { Side::Remote };
            let consumer = &trio.of_bob;
            if mixed & 16 == 0 && index > 0 {
                trio.stage.refuse(WorkerError::DeadlinePassed);
            }
            async move {
                match mixed & 2 {
                    0 => consumer.pause_by(side, Value::Null).await,
                    _ => consumer.resume_by(side, Value::Null).await,
                }
            }
        });
        // Refusals hit whichever requests come; corrections among them, which are then sent again.
        soon(join_all(calls)).await;
    }
    for side in [Side::Local, Side::Remote] {
        while soon(trio.of_bob.resume_by(side, Value::Null)).await.is_err() {}
    }
    soon(trio.of_bob.pause(Value::Null)).await.ok();
    soon(trio.of_bob.pause(Value::Null)).await.unwrap();
    let last = trio
        .stage
        .requests()
        .into_iter()
        .rev()
        .find(|method| matches!(method, Method::SetConsumerPaused { .. }));
    let consumer = trio.of_bob.id();
    assert_eq!(last, Some(Method::SetConsumerPaused { consumer, paused: true }));
    assert!(trio.of_bob.locally_paused() && !trio.of_bob.remotely_paused());
}
