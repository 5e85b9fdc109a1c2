//! When a worker is taken for hung, and when a request has waited long enough: only time in which the supervisor itself ran
//! counts, and what lies in the channel is read before.
//!
//! Time is virtual. `advance` is what happens to a supervisor that is stopped, or gets no CPU: the clock goes on, and it does not run.

use tokio::time::{Instant, advance, sleep};

use super::*;

const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);

/// As the default settings are.
fn watched() -> Settings {
    Settings {
        ping_interval: INTERVAL,
        ping_timeout: TIMEOUT,
        request_timeout: TIMEOUT,
        ..settings()
    }
}

async fn pinged(fake: &mut Fake) -> weir_channel::message::Request {
    let (request, _) = fake.any_request().await.expect("the conversation goes on");
    assert_eq!(request.method, Method::Ping);
    request
}

/// More than once, because which of two things that are ready is looked at first is a matter of chance.
const ROUNDS: usize = 30;

#[tokio::test(start_paused = true)]
async fn an_answer_that_lies_in_the_channel_is_read_before_a_worker_is_taken_for_hung() {
    let (server, mut fake) = server(watched()).await;
    for round in 0..ROUNDS {
        let ping = pinged(&mut fake).await;
        // All but the last of its time has passed, so that the first look afterwards is the last.
        sleep(TIMEOUT - Duration::from_millis(1)).await;
        fake.answer(&ping, Ok(Reply::Done)).await;
        advance(Duration::from_secs(7)).await;
        sleep(INTERVAL / 2).await;
        assert!(server.workers()[0].ping_rtt().is_some(), "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn time_in_which_the_supervisor_was_stopped_does_not_count_against_a_worker() {
    let (server, mut fake) = server(watched()).await;
    for round in 0..ROUNDS {
        let ping = pinged(&mut fake).await;
        advance(Duration::from_secs(7)).await;
        // It was stopped too, or waits for its turn.
        sleep(Duration::from_secs(4)).await;
        fake.answer(&ping, Ok(Reply::Done)).await;
        sleep(INTERVAL / 2).await;
        assert!(server.workers()[0].ping_rtt().is_some(), "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn time_in_which_the_supervisor_got_no_cpu_does_not_count_against_a_worker() {
    let (server, mut fake) = server(watched()).await;
    for round in 0..ROUNDS {
        let ping = pinged(&mut fake).await;
        // A turn every second, and none for the worker.
        for _ in 0..20 {
            advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
        fake.answer(&ping, Ok(Reply::Done)).await;
        sleep(INTERVAL / 2).await;
        assert!(server.workers()[0].ping_rtt().is_some(), "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_answers_nothing_is_hung_when_its_time_is_over() {
    let mut scene = scene_with(watched()).await;
    let mut events = scene.server.events();
    pinged(&mut scene.fake).await;
    let asked = Instant::now();
    // What else it says is no answer.
    for _ in 0..10 {
        sleep(Duration::from_millis(490)).await;
        scene.fake.notify(Notification::LogLinesDropped { count: 1 }).await;
    }
    let event = soon(events.next()).await.unwrap();
    let took = asked.elapsed();
    assert!(
        matches!(
            &event.kind,
            EventKind::RoomClosed {
                cause: CloseCause::WorkerDied { .. },
                ..
            }
        ),
        "{event:?}"
    );
    assert!((TIMEOUT..TIMEOUT + TIMEOUT / 10).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_lies_in_the_channel_is_read_before_a_request_is_given_up() {
    let mut scene = scene_with(Settings {
        ping_interval: Duration::from_secs(600),
        ..watched()
    })
    .await;
    for round in 0..ROUNDS {
        let pause = scene.consumer.request_key_frame();
        let answer = async {
            let (request, _) = scene.fake.request().await.unwrap();
            sleep(TIMEOUT - Duration::from_millis(1)).await;
            scene.fake.answer(&request, Ok(Reply::Done)).await;
            advance(Duration::from_secs(7)).await;
        };
        let (outcome, ()) = tokio::join!(pause, answer);
        assert!(outcome.is_ok(), "round {round}: {outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_answered_is_given_up_when_its_time_is_over() {
    let mut scene = scene_with(Settings {
        ping_interval: Duration::from_secs(600),
        ..watched()
    })
    .await;
    // After a long silence, in which nobody looked at the clock.
    sleep(Duration::from_secs(300)).await;
    let asked = Instant::now();
    let pause = scene.consumer.request_key_frame();
    let (outcome, _request) = tokio::join!(pause, scene.fake.request());
    assert_eq!(outcome.unwrap_err().code(), "timeout");
    let took = asked.elapsed();
    assert!((TIMEOUT..TIMEOUT + TIMEOUT / 10).contains(&took), "{took:?}");
}
