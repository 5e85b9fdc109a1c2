//! A thread that measures.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::Context as _;
use weir_worker::net::scheduling;

use super::cpu;

/// A thread on one CPU, which carries out one order after the other and gives back what each has brought.
#[derive(Debug)]
pub(in crate::cli) struct MeasuringThread<Order, Slice> {
    name: &'static str,
    orders: Sender<Order>,
    slices: Receiver<anyhow::Result<Slice>>,
}

impl<Order: Send + 'static, Slice: Send + 'static> MeasuringThread<Order, Slice> {
    pub(in crate::cli) fn start(
        name: &'static str,
        cpu: usize,
        mut carry_out: impl FnMut(Order) -> anyhow::Result<Slice> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (orders, incoming) = channel();
        let (outgoing, slices) = channel();
        thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                cpu::pin(cpu);
                // As the worker's. Where that is forbidden the figures suffer, nothing else.
                let _ = scheduling::prefer_latency();
                for order in incoming {
                    if outgoing.send(carry_out(order)).is_err() {
                        break;
                    }
                }
            })
            .with_context(|| format!("starting the thread `{name}`"))?;
        Ok(Self { name, orders, slices })
    }

    /// Starts a slice; [`MeasuringThread::finish`] waits for its end.
    pub(in crate::cli) fn begin(&self, order: Order) -> anyhow::Result<()> {
        self.orders.send(order).ok().with_context(|| self.is_gone())
    }

    pub(in crate::cli) fn finish(&self) -> anyhow::Result<Slice> {
        self.slices.recv().with_context(|| self.is_gone())?
    }

    /// A whole slice.
    pub(in crate::cli) fn slice(&self, order: Order) -> anyhow::Result<Slice> {
        self.begin(order)?;
        self.finish()
    }

    fn is_gone(&self) -> String {
        format!("the thread `{}` is gone", self.name)
    }
}
