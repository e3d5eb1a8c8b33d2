//! Tokens: who gives them, who does not, and how long a peer that has given one may be silent.

use super::go_end::GoEnd;
use super::old_end::OldEnd;
use super::plain_end::PlainEnd;
use super::*;
use core::time::Duration;
use fulmar_wire::yamux::{Header as YamuxHeader, ParseError, Type};

const START: Instant = Instant::from_millis(77_000);
const ALL: [Protocol; 3] = [
    Protocol::Smux(Version::V1),
    Protocol::Smux(Version::V2),
    Protocol::Yamux,
];

fn secs(secs: u64) -> Instant {
    START + Duration::from_secs(secs)
}

fn end(protocol: Protocol, role: Role, token: Option<u64>) -> Mux {
    let config = Config {
        token,
        ..Config::new(protocol, role)
    };
    Mux::new(config, START).expect("valid")
}

fn pair(protocol: Protocol, tokens: [Option<u64>; 2]) -> (Mux, Mux) {
    let mut a = end(protocol, Role::Opener, tokens[0]);
    let mut b = end(protocol, Role::Acceptor, tokens[1]);
    settle(&mut a, &mut b, START);
    (a, b)
}

#[test]
fn tokens_are_exchanged_behind_the_hello() {
    const TOKENS: [u64; 2] = [0xfedc_ba98_7654_3210, 0x0000_0001_ffff_fffe];
    for protocol in ALL {
        let (a, b) = pair(protocol, TOKENS.map(Some));
        assert_eq!(
            (a.token(), a.peer_token()),
            (Some(TOKENS[0]), Some(TOKENS[1]))
        );
        assert_eq!(
            (b.token(), b.peer_token()),
            (Some(TOKENS[1]), Some(TOKENS[0]))
        );
    }
}

#[test]
fn a_token_split_anywhere_arrives() {
    for protocol in ALL {
        let mut a = end(protocol, Role::Opener, Some(3 << 40));
        let mut b = end(protocol, Role::Acceptor, Some(5 << 40));
        for byte in drain(&mut a, START) {
            b.handle_input(START, &[byte]).expect("sound");
        }
        for byte in drain(&mut b, START) {
            a.handle_input(START, &[byte]).expect("sound");
        }
        assert_eq!(a.peer_token(), Some(5 << 40));
        settle(&mut a, &mut b, START);
        assert_eq!(b.peer_token(), Some(3 << 40));
    }
}

/// Fulmar ends that know of no tokens: nothing is given to them, and they go on as before.
#[test]
fn an_end_without_a_token_is_given_none() {
    for protocol in ALL {
        for tokens in [[Some(1), None], [None, Some(1)], [None, None]] {
            let (a, b) = pair(protocol, tokens);
            for end in [&a, &b] {
                assert!(end.peer().half_close());
                assert_eq!((end.token(), end.peer_token()), (None, None));
                assert_eq!(end.patience(), end.config().keepalive_timeout);
            }
        }
    }
}

fn talk(ours: &mut Mux, other: &mut dyn PlainEnd) {
    for second in 0..100 {
        ours.handle_timeout(secs(second)).expect("alive");
        other.input(&drain(ours, secs(second)));
        assert_eq!(other.failed(), None);
        if second % 10 == 0 {
            other.keep_alive();
        }
        let answer = other.take_output();
        ours.handle_input(secs(second), &answer).expect("sound");
    }
}

/// The programs that are replaced end the session at a frame that they do not know: they never get one.
#[test]
fn a_plain_peer_is_given_none() {
    for protocol in ALL {
        for role in [Role::Opener, Role::Acceptor] {
            let mut ours = end(protocol, role, Some(7));
            let opens = role == Role::Acceptor;
            let mut other: Box<dyn PlainEnd> = match protocol {
                Protocol::Smux(version) => Box::new(GoEnd::new(version, 1024, 9_000)),
                Protocol::Yamux => Box::new(OldEnd::new(opens, 1024)),
            };
            if opens {
                other.open();
            } else {
                ours.open(START).expect("open");
            }
            talk(&mut ours, &mut *other);
            assert!(!ours.exchanges_tokens());
            assert_eq!((ours.token(), ours.peer_token()), (None, None));
            assert_eq!(ours.patience(), ours.config().keepalive_timeout);
        }
    }
}

#[test]
fn a_token_that_was_not_agreed_on_is_refused() {
    let frame = frame(Version::V2, Command::Token, 0, 8, &[1; 8]);
    let smux = Protocol::Smux(Version::V2);
    for tokens in [[Some(1), None], [None, Some(1)], [None, None]] {
        let (mut a, mut b) = pair(smux, tokens);
        for end in [&mut a, &mut b] {
            let error = Error::BadCommand(Command::Token.number());
            assert_eq!(end.handle_input(START, &frame), Err(error));
        }
        let (mut a, mut b) = pair(Protocol::Yamux, tokens);
        for end in [&mut a, &mut b] {
            let error = Error::BadFrame(ParseError::Type(Type::Token.number()));
            let frame = YamuxHeader::token(9).to_bytes();
            assert_eq!(end.handle_input(START, &frame), Err(error));
        }
    }
    // Of several the first counts, so that nobody else's word replaces it.
    let (mut a, _) = pair(smux, [Some(1), Some(2)]);
    a.handle_input(START, &frame).expect("agreed");
    assert_eq!(a.peer_token(), Some(2));
}

#[test]
fn a_peer_with_a_token_may_be_silent_for_two_minutes() {
    for protocol in ALL {
        for heard in [0, 7, 119] {
            let (mut a, mut b) = pair(protocol, [Some(1), Some(2)]);
            let ping = match protocol {
                Protocol::Smux(version) => frame(version, Command::Nop, 0, 0, &[]),
                Protocol::Yamux => YamuxHeader::ping(fulmar_wire::yamux::Flags::ACK, 0)
                    .to_bytes()
                    .to_vec(),
            };
            for end in [&mut a, &mut b] {
                if heard > 0 {
                    end.handle_input(secs(heard), &ping).expect("sound");
                }
                let mut now = secs(heard);
                let error = loop {
                    now = end.poll_timeout().expect("alive").max(now);
                    if let Err(error) = end.handle_timeout(now) {
                        break error;
                    }
                    drain(end, now);
                };
                assert_eq!((error, now), (Error::PeerSilent, secs(heard + 120)));
            }
        }
    }
}

/// A clock that jumps by less than that ends nothing; by more, it does at once.
#[test]
fn a_jump_of_the_clock_is_measured() {
    for (jump, lives) in [(75, true), (119, true), (121, false)] {
        let (mut a, _) = pair(Protocol::Smux(Version::V2), [Some(1), Some(2)]);
        assert_eq!(a.handle_timeout(secs(jump)).is_ok(), lives, "{jump} s");
    }
}
