//! Whether the sender's shape is known to be the assumed one.
//!
//! Nothing in a packet tells the shape of its group, and a wrong shape is noticed only by a packet in a place where the
//! other kind belongs. When just those get lost, the wrong packets are rebuilt from the wrong parity. And they do not
//! look wrong: what is the same in all packets of a group (conversation, command, lengths) is the same in its parity,
//! so KCP would take them and hand rubbish to its reader. Both edges of the pattern, seen in neighbouring packets, exclude that.

/// Packets in their places that a shape needs, besides its edges: small shapes fit many patterns for a while.
const ENOUGH: u8 = 16;

/// What speaks for the assumed shape, since it was assumed.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Certainty {
    packets: u8,
    /// The group of the latest packet in each place next to an edge.
    first_data: Option<u32>,
    last_data: Option<u32>,
    first_parity: Option<u32>,
    last_parity: Option<u32>,
    /// Last data and first parity of one group have been seen.
    into_parity: bool,
    /// Last parity of one group and first data of the next have been seen.
    into_data: bool,
}

impl Certainty {
    /// A packet has arrived whose kind fits its place, `position` of `data + parity`.
    #[inline]
    pub(crate) fn fits(&mut self, group: u32, position: usize, data: usize, parity: usize) {
        if self.is_certain() {
            return;
        }
        self.packets = self.packets.saturating_add(1);
        for (place, at) in [
            (&mut self.first_data, 0),
            (&mut self.last_data, data - 1),
            (&mut self.first_parity, data),
            (&mut self.last_parity, data + parity - 1),
        ] {
            if position == at {
                *place = Some(group);
            }
        }
        self.into_parity |= self.last_data.is_some() && self.last_data == self.first_parity;
        self.into_data |= self
            .last_parity
            .is_some_and(|group| self.first_data == Some(group.wrapping_add(1)));
    }

    /// The shape has been read off a row of packets without gaps.
    pub(crate) const fn established() -> Self {
        Self {
            packets: ENOUGH,
            first_data: None,
            last_data: None,
            first_parity: None,
            last_parity: None,
            into_parity: true,
            into_data: true,
        }
    }

    #[inline]
    pub(crate) const fn is_certain(&self) -> bool {
        self.into_parity && self.into_data && self.packets >= ENOUGH
    }
}
