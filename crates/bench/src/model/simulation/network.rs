//! Messages between a region and the home region: delays, order, losses.
//!
//! A message takes half a round trip with jitter. One in 500 is lost once and sent again, as TCP does. The bus and the
//! outbox have a connection each, which keeps the order; lookups and commits use many, so they overtake each other.

use rand::{RngExt, rngs::StdRng};

use super::plan::FaultKind;

/// Share of the messages between regions that are lost once and sent again.
const LOSS: f64 = 0.002;
/// A lost message is sent again after this time and a round trip; those behind it on its connection wait.
const RESEND_S: f64 = 0.2;

/// Longest way within a region, where messages are not lost.
const WITHIN_REGION_S: f64 = 0.001;

/// Purpose of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// Lookups and commits.
    Database,
    /// Publications, invalidations and heartbeats.
    Bus,
    /// Reads of the outbox by relays.
    Outbox,
}

/// A direction between a region and the home region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    ToHome,
    FromHome,
}

/// A fault that lasts.
#[derive(Debug, Clone, Copy)]
pub(super) struct ActiveFault {
    pub(super) kind: FaultKind,
    pub(super) region: usize,
}

impl ActiveFault {
    /// Whether messages of the region are lost.
    pub(super) fn loses(self, region: usize, channel: Channel, direction: Direction) -> bool {
        self.region == region
            && match self.kind {
                FaultKind::RelayCut => channel != Channel::Database,
                FaultKind::CutOff | FaultKind::RegionLost | FaultKind::HomeLost => true,
                FaultKind::ToHomeLost => direction == Direction::ToHome,
                FaultKind::FromHomeLost => direction == Direction::FromHome,
                FaultKind::Paused => false,
            }
    }
}

/// When the last message on each ordered connection arrives, by region.
pub(super) struct Network {
    last: Vec<[f64; 4]>,
}

impl Network {
    pub(super) fn new(regions: usize) -> Self {
        Self { last: vec![[0.0; 4]; regions] }
    }

    /// When a message that is sent now arrives.
    pub(super) fn arrival(
        &mut self,
        random: &mut StdRng,
        now: f64,
        one_way: f64,
        (region, channel, direction): (usize, Channel, Direction),
    ) -> f64 {
        let (jitter, luck): (f64, f64) = (random.random(), random.random());
        let resend =
            if luck < LOSS && one_way > WITHIN_REGION_S { RESEND_S + 2.0 * one_way } else { 0.0 };
        let at = now + one_way * (1.0 + jitter.powi(8) / 2.0) + resend;
        let connection = match (channel, direction) {
            (Channel::Database, _) => return at,
            (Channel::Bus, Direction::ToHome) => 0,
            (Channel::Bus, Direction::FromHome) => 1,
            (Channel::Outbox, Direction::ToHome) => 2,
            (Channel::Outbox, Direction::FromHome) => 3,
        };
        let Some(last) = self.last.get_mut(region).and_then(|last| last.get_mut(connection)) else {
            return at;
        };
        *last = at.max(*last);
        *last
    }
}
