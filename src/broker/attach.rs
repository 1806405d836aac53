//! How a stream gets its lease: at once, or as a standby that waits for it.

use std::sync::Arc;

use super::{
    Consume, Error, Event, POLL_INTERVAL,
    feed::Subscription,
    lease::{Lease, Seat},
    stream::{End, Stream},
};
use crate::{
    model::{ConsumerKey, Offset},
    storage::Stored,
};

impl Stream {
    /// Takes the lease if it is free.
    pub(super) async fn acquire_at_once(
        &self,
        seat: &Arc<Seat>,
        key: ConsumerKey,
    ) -> Result<(Lease, Offset), End> {
        if let Some(turn) = seat.try_turn()
            && let Ok(acquired) = seat.acquire(turn, key, &self.request.holder).await?
        {
            return Ok(acquired);
        }
        let Consume { topic, consumer, .. } = &self.request;
        let holder = self.broker.find_holder(seat, topic, consumer).await?;
        let (topic, consumer) = (topic.clone(), consumer.clone());
        Err(Error::LeaseHeld { topic, consumer, holder }.into())
    }

    /// Waits as a standby: first for this broker's turn, then for the other brokers.
    pub(super) async fn wait_for_lease(
        &mut self,
        seat: &Arc<Seat>,
        stored: Stored,
        log: &Subscription,
    ) -> Result<(Lease, Offset), End> {
        let mut turn = match seat.try_turn() {
            Some(turn) => turn,
            None => {
                self.stand_by(seat).await?;
                let mut turn = std::pin::pin!(seat.turn());
                loop {
                    tokio::select! {
                        turn = &mut turn => break turn,
                        idle = self.idle(None) => idle?,
                    }
                    self.beat(stored.position, log).await?;
                }
            }
        };
        let mut told = false;
        loop {
            match seat.acquire(turn, stored.key, &self.request.holder).await? {
                Ok(acquired) => return Ok(acquired),
                Err(still_my_turn) => turn = still_my_turn,
            }
            if !told {
                self.stand_by(seat).await?;
                told = true;
            }
            let poll = tokio::time::sleep(POLL_INTERVAL);
            tokio::select! {
                () = seat.freed_elsewhere() => {}
                () = poll => {}
                idle = self.idle(None) => {
                    idle?;
                    self.beat(stored.position, log).await?;
                }
            }
        }
    }

    async fn stand_by(&mut self, seat: &Seat) -> Result<(), End> {
        let Consume { topic, consumer, .. } = &self.request;
        let holder = self.broker.find_holder(seat, topic, consumer).await?;
        self.send(Event::Standby { holder }, None).await
    }
}
