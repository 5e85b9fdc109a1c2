//! Several things in one task, of which each gets its share.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// One of several things.
pub(super) type Branch<'a, T> = Pin<&'a mut (dyn Future<Output = T> + Send)>;

/// What the first of them that ends yields. Each time another one is looked at first, in turn: one that always has something to do
/// leaves the others their share. There is no chance in it, so the same things happen again under the same circumstances.
pub(super) async fn first_of<T, const COUNT: usize>(turn: &mut usize, mut branches: [Branch<'_, T>; COUNT]) -> T {
    poll_fn(|context| {
        *turn = (*turn + 1) % COUNT;
        for place in 0..COUNT {
            let polled = branches[(*turn + place) % COUNT].as_mut().poll(context);
            if polled.is_ready() {
                return polled;
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn whoever_is_always_ready_leaves_the_others_their_share() {
        let mut turn = 0;
        let mut ends = [0; 3];
        for _ in 0..30 {
            let branches: [Branch<'_, usize>; 3] = [pin!(async { 0 }), pin!(async { 1 }), pin!(async { 2 })];
            ends[first_of(&mut turn, branches).await] += 1;
        }
        assert_eq!(ends, [10; 3]);
        let late = async {
            yield_now().await;
            "late"
        };
        let branches: [Branch<'_, &str>; 2] = [pin!(std::future::pending()), pin!(late)];
        assert_eq!(first_of(&mut turn, branches).await, "late");
    }
}
