//! What tests ask of a reference end that is no Fulmar.

pub(super) trait PlainEnd {
    fn open(&mut self) -> u32;
    /// Starts to write; what the window does not let go waits. `false`: the stream takes nothing.
    fn write(&mut self, id: u32, data: &[u8]) -> bool;
    /// Bytes of this stream that have left.
    fn sent(&self, id: u32) -> usize;
    fn is_blocked(&self, id: u32) -> bool;
    fn read(&mut self, id: u32, max: usize) -> Vec<u8>;
    /// Whether its application has the stream.
    fn has(&self, id: u32) -> bool;
    /// Everything was read and nothing more comes.
    fn at_eof(&self, id: u32) -> bool;
    fn can_write(&self, id: u32) -> bool;
    fn close(&mut self, id: u32);
    fn keep_alive(&mut self);
    fn take_output(&mut self) -> Vec<u8>;
    fn input(&mut self, bytes: &[u8]);
    /// Why it has stopped.
    fn failed(&self) -> Option<&'static str>;
    /// What is left of streams.
    fn streams(&self) -> usize;
}
