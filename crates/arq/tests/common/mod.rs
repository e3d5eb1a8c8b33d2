//! What the tests of this crate share.
#![allow(dead_code)]

pub(crate) mod link;
pub(crate) mod model;

use fulmar_arq::DatagramSink;

/// Collects datagrams.
#[derive(Default)]
pub(crate) struct Datagrams {
    pub(crate) sent: Vec<Vec<u8>>,
    buffer: Vec<u8>,
    /// How many more it takes; `None` = any number.
    pub(crate) room: Option<usize>,
}

impl DatagramSink for Datagrams {
    fn reserve(&mut self, max_len: usize) -> &mut [u8] {
        if self.buffer.len() < max_len {
            self.buffer.resize(max_len, 0xEE);
        }
        &mut self.buffer
    }

    fn commit(&mut self, len: usize) {
        self.sent.push(self.buffer[..len].to_vec());
        self.buffer.fill(0xEE);
        if let Some(room) = &mut self.room {
            *room -= 1;
        }
    }

    fn room(&self) -> usize {
        self.room.unwrap_or(usize::MAX)
    }
}

impl Datagrams {
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.sent)
    }
}
