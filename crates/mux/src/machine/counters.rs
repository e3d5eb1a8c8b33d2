//! What a session counts.

/// Totals since the session began; those of what was received alone outlive a [`Rest`](super::Rest).
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Frames handed out for sending.
    pub frames_sent: u64,
    /// Frame headers received and understood.
    pub frames_received: u64,
    /// Payload bytes handed out for sending.
    pub bytes_sent: u64,
    /// Payload bytes delivered to streams.
    pub bytes_received: u64,
    /// Streams that this end opened.
    pub streams_opened: u64,
    /// Streams that the peer opened.
    pub streams_accepted: u64,
    /// Streams of the peer that were refused because the session goes away.
    pub streams_refused: u64,
    /// Keep-alives sent.
    pub nops_sent: u64,
    /// Keep-alives received.
    pub nops_received: u64,
    /// Window updates sent.
    pub updates_sent: u64,
    /// Window updates received.
    pub updates_received: u64,
    /// Streams cut from here, by a private reset.
    pub resets_sent: u64,
    /// Streams cut by the peer, by a private reset.
    pub resets_received: u64,
    /// Payload bytes for streams that do not exist or are no longer read: skipped.
    pub bytes_skipped: u64,
    /// Frames for streams that do not exist. Some are normal after this end closed a stream.
    pub frames_unknown: u64,
    /// `PSH` frames without payload: ignored.
    pub empty_frames: u64,
    /// `SYN` of a stream that exists, or sent to an end that accepts none: ignored.
    pub syns_ignored: u64,
    /// `FIN` of a stream that was ended before: ignored.
    pub fins_repeated: u64,
    /// Unsent bytes dropped because the peer took no more or the stream was cut.
    pub bytes_dropped: u64,
    /// Ends that were held back for the sake of a peer without half-close.
    pub fins_held: u64,
    /// Closed streams that were cut because the peer's window did not open.
    pub lingers_cut: u64,
}
