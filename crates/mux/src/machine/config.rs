//! The settings of a session, and the rules for them (docs/spec/kcptun.md, section 3.5).

use core::time::Duration;
use fulmar_wire::smux::{Features, MAX_PAYLOAD, Version};
use fulmar_wire::yamux::INITIAL_WINDOW;

/// The frames that are spoken. Both ends must have the same.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// smux (docs/spec/kcptun.md, section 9). A server can see the client's version in its first byte.
    Smux(Version),
    /// yamux version 0 (docs/spec/kcptun2016.md, section 9).
    Yamux,
}

impl From<Version> for Protocol {
    fn from(version: Version) -> Self {
        Self::Smux(version)
    }
}

/// Which end of the session we are.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Opens streams: a client.
    Opener,
    /// Accepts streams: a server.
    Acceptor,
}

/// Settings of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The frames that are spoken.
    pub protocol: Protocol,
    /// Which end we are.
    pub role: Role,
    /// Most payload bytes of a frame that we send, 1 to 65535 (`--framesize`; upstream's default is 8192). Smaller
    /// frames share the link more evenly among streams, larger ones cost less. Frames of any size are received.
    pub max_frame: u32,
    /// Bytes received and not yet consumed, all streams together, at which [`wants_input`](super::Mux::wants_input)
    /// says no, 1 to 2^31 - 1 (`--smuxbuf`; upstream's default is 4 MiB). Too small stalls all streams behind the
    /// slowest reader; memory for received bytes stays below twice this value and 64 KiB.
    pub session_buffer: u32,
    /// Bytes that may be in flight to us on one stream, not in smux version 1; 1 to `session_buffer`, in yamux at least 262,144
    /// (`--streambuf`; kcptun's default is 2 MiB, yamux's 256 KiB). Less than bandwidth times round trip slows a stream down.
    pub stream_buffer: u32,
    /// Bytes that a stream buffers before they leave in frames, at least 1. Ours; default 64 KiB. It has to hold what
    /// leaves between two visits of the driver, not what is in flight.
    pub send_buffer: u32,
    /// A frame is sent at least this often (`--keepalive`; kcptun's default is 10 s, yamux's 30 s), more than zero.
    pub keepalive: Duration,
    /// The session ends when nothing was heard between two checks that are this far apart; at least `keepalive`.
    /// Upstream: 30 s, fixed.
    pub keepalive_timeout: Duration,
    /// The session ends when nothing was heard for so long of a Fulmar peer with which tokens were exchanged ([`token`](Self::token)): it
    /// will be told. Ours; 120 s, so that connections outlive a short sleep of the other end.
    pub token_timeout: Duration,
    /// Streams that the application holds at the same time, at least 1. Ours. An acceptor lets 1024 more wait (the
    /// length of smux's accept queue) and ends the session when the peer goes on; in yamux 256 more, and refuses others. An idle stream
    /// costs about 300 bytes.
    pub max_streams: u32,
    /// How long the `FIN` of an opener towards a peer without half-close waits for the answer to go quiet. Ours;
    /// default 3 s. Too short cuts slow answers off, too long delays the end of input at the target. Zero sends `FIN`
    /// at once.
    pub fin_hold: Duration,
    /// How long the last bytes of a stream that the application closed wait for the peer's window before the stream
    /// is cut. Ours; default 30 s.
    pub linger: Duration,
    /// Whether we say and understand hello. Off, the peer is taken for a Go program whatever it is.
    pub hello: bool,
    /// What our hello says that this end can do, beside what [`token`](Self::token) says.
    pub features: Features,
    /// What a peer of ours has to say to be believed that it has ended the session: random, secret, drawn for this session. `None`: tokens
    /// are neither given nor taken.
    pub token: Option<u64>,
}

/// What every end can do.
pub(super) const FEATURES: Features = Features::HALF_CLOSE;

impl Config {
    /// Upstream's defaults where it has them.
    #[must_use]
    pub fn new(protocol: impl Into<Protocol>, role: Role) -> Self {
        let protocol = protocol.into();
        let yamux = protocol == Protocol::Yamux;
        Self {
            protocol,
            role,
            max_frame: if yamux { 32 * 1024 } else { 8192 },
            session_buffer: 4 * 1024 * 1024,
            stream_buffer: 2 * 1024 * 1024,
            send_buffer: 64 * 1024,
            keepalive: Duration::from_secs(if yamux { 30 } else { 10 }),
            keepalive_timeout: Duration::from_secs(if yamux { 40 } else { 30 }),
            token_timeout: Duration::from_secs(120),
            max_streams: 16384,
            fin_hold: Duration::from_secs(3),
            linger: Duration::from_secs(30),
            hello: true,
            features: FEATURES,
            token: None,
        }
    }

    /// Applies upstream's rules and those of the settings that are ours.
    ///
    /// # Errors
    /// The first rule that is broken, in upstream's order.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let checks = [
            (self.keepalive.is_zero(), ConfigError::KeepaliveZero),
            (
                self.keepalive_timeout < self.keepalive,
                ConfigError::KeepaliveTimeout,
            ),
            (self.max_frame == 0, ConfigError::FrameZero),
            (
                self.max_frame as usize > MAX_PAYLOAD,
                ConfigError::FrameTooLarge,
            ),
            (self.session_buffer == 0, ConfigError::SessionBufferZero),
            (self.stream_buffer == 0, ConfigError::StreamBufferZero),
            (
                self.stream_buffer > self.session_buffer,
                ConfigError::StreamBufferTooLarge,
            ),
            (
                self.session_buffer > i32::MAX as u32,
                ConfigError::SessionBufferTooLarge,
            ),
            (
                self.protocol == Protocol::Yamux && self.stream_buffer < INITIAL_WINDOW,
                ConfigError::StreamBufferTooSmall,
            ),
            (
                self.send_buffer == 0 || self.send_buffer > i32::MAX as u32,
                ConfigError::SendBuffer,
            ),
            (
                self.max_streams == 0 || self.max_streams > i32::MAX as u32,
                ConfigError::MaxStreams,
            ),
        ];
        match checks.into_iter().find(|(broken, _)| *broken) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

/// A setting that cannot be. Where upstream has the rule, the text is upstream's.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// `keepalive` is 0.
    #[error("keep-alive interval must be positive")]
    KeepaliveZero,
    /// `keepalive` exceeds `keepalive_timeout`.
    #[error("keep-alive timeout must be larger than keep-alive interval")]
    KeepaliveTimeout,
    /// `max_frame` is 0.
    #[error("max frame size must be positive")]
    FrameZero,
    /// `max_frame` exceeds 65535.
    #[error("max frame size must not be larger than 65535")]
    FrameTooLarge,
    /// `session_buffer` is 0.
    #[error("max receive buffer must be positive")]
    SessionBufferZero,
    /// `stream_buffer` is 0.
    #[error("max stream buffer must be positive")]
    StreamBufferZero,
    /// `stream_buffer` exceeds `session_buffer`; a rule for version 1, too.
    #[error("max stream buffer must not be larger than max receive buffer")]
    StreamBufferTooLarge,
    /// `session_buffer` exceeds 2^31 - 1.
    #[error("max receive buffer must not be larger than 2147483647")]
    SessionBufferTooLarge,
    /// `stream_buffer` is below what a peer may send before any window update.
    #[error("the window of a yamux stream must not be smaller than 262144")]
    StreamBufferTooSmall,
    /// `send_buffer` is not within 1 to 2^31 - 1.
    #[error("send buffer must be 1 to 2147483647 bytes")]
    SendBuffer,
    /// `max_streams` is not within 1 to 2^31 - 1.
    #[error("number of streams must be 1 to 2147483647")]
    MaxStreams,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(change: impl FnOnce(&mut Config)) -> Option<ConfigError> {
        let mut config = Config::new(Version::V1, Role::Opener);
        change(&mut config);
        config.validate().err()
    }

    #[test]
    fn rules() {
        assert_eq!(broken(|_| ()), None);
        assert_eq!(broken(|c| c.keepalive = Duration::from_secs(30)), None);
        assert_eq!(
            broken(|c| c.keepalive = Duration::from_secs(31)),
            Some(ConfigError::KeepaliveTimeout)
        );
        assert_eq!(
            broken(|c| c.keepalive = Duration::ZERO),
            Some(ConfigError::KeepaliveZero)
        );
        assert_eq!(broken(|c| c.max_frame = 0), Some(ConfigError::FrameZero));
        assert_eq!(broken(|c| c.max_frame = 65535), None);
        assert_eq!(
            broken(|c| c.max_frame = 65536),
            Some(ConfigError::FrameTooLarge)
        );
        assert_eq!(
            broken(|c| c.session_buffer = 0),
            Some(ConfigError::SessionBufferZero)
        );
        assert_eq!(
            broken(|c| c.stream_buffer = 0),
            Some(ConfigError::StreamBufferZero)
        );
        assert_eq!(
            broken(|c| c.session_buffer = 1024 * 1024),
            Some(ConfigError::StreamBufferTooLarge)
        );
        assert_eq!(
            broken(|c| c.session_buffer = 1 << 31),
            Some(ConfigError::SessionBufferTooLarge)
        );
        assert_eq!(broken(|c| c.send_buffer = 0), Some(ConfigError::SendBuffer));
        assert_eq!(broken(|c| c.max_streams = 0), Some(ConfigError::MaxStreams));
    }
}
