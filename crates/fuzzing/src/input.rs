//! Reading a fuzz input as a sequence of operations, and writing such inputs.
//!
//! An input is single bytes and chunks in the order in which the target asks for them. A chunk is its length
//! (16 bits, little-endian) and its bytes; a length that reaches beyond the end means the rest. What is
//! missing at the end reads as zero, so every input means something and cutting it keeps its beginning.

/// The input that remains.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) const fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// The next chunk; none at the end of the input.
    pub(crate) fn chunk(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let len = usize::from(self.u16()).min(self.0.len());
        self.0.split_off(..len)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that is left.
    pub(crate) const fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// An input in the making: the reverse of how targets read theirs. For seeds.
#[derive(Clone, Debug, Default)]
pub struct Script(Vec<u8>);

impl Script {
    /// An empty input.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a single byte.
    #[must_use]
    pub fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    /// Adds two bytes, little-endian.
    #[must_use]
    pub fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Adds a chunk, its first 65535 bytes if there are more.
    #[must_use]
    pub fn chunk(self, bytes: &[u8]) -> Self {
        let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.u16(len).rest(&bytes[..usize::from(len)])
    }

    /// Adds bytes as they are.
    #[must_use]
    pub fn rest(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The input.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_read_as_written() {
        let bytes = Script::new()
            .byte(7)
            .u16(0x1234)
            .chunk(b"abc")
            .chunk(b"")
            .rest(b"\xff\xffxy")
            .finish();
        let mut input = Input::new(&bytes);
        assert_eq!((input.byte(), input.u16()), (7, 0x1234));
        assert_eq!(input.chunk(), Some(&b"abc"[..]));
        assert_eq!(input.chunk(), Some(&b""[..]));
        assert_eq!(input.chunk(), Some(&b"xy"[..]));
        assert_eq!(input.chunk(), None);
        assert_eq!((input.byte(), input.u16()), (0, 0));
        assert_eq!(Input::new(b"rest").rest(), b"rest");
    }
}
