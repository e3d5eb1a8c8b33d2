//! Frames and messages that break the rules above KCP, by format: part of the table of [`setups`](super::setups).

use fulmar_wire::libev::Message;
use fulmar_wire::smux::{self, Command, Version};
use fulmar_wire::yamux::{self, Flags, Type};

/// Numbers of streams: none, a client's first, the server's, an unknown one, the last.
const STREAMS: [u32; 6] = [0, 1, 2, 3, 4711, u32::MAX];

/// Of smux, both versions.
pub(crate) fn smux() -> Vec<Vec<u8>> {
    let mut all = vec![
        vec![9, 0, 0, 0, 3, 0, 0, 0],
        vec![2, 77, 0, 0, 3, 0, 0, 0],
        vec![0; 100],
    ];
    let frame = |version, command, stream, len, payload: &[u8]| {
        let header = smux::Header {
            version,
            command,
            len,
            stream,
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(payload);
        bytes
    };
    for version in [Version::V1, Version::V2] {
        for stream in STREAMS {
            let fin = frame(version, Command::Fin, stream, 0, &[]);
            let largest = [0, 0, 0, 0, 255, 255, 255, 255];
            all.extend([
                frame(version, Command::Syn, stream, 0, &[]),
                // Its end, twice.
                [fin.clone(), fin].concat(),
                frame(version, Command::Psh, stream, 5, b"hello"),
                // More than follows, so that what comes next is taken for its payload.
                frame(version, Command::Psh, stream, u16::MAX, b"x"),
                frame(version, Command::Nop, stream, 3, b"nop"),
                frame(version, Command::Rst, stream, 4, &[0; 4]),
                // More consumed than was sent, the largest window, none, and half an update.
                frame(version, Command::Upd, stream, 8, &[255; 8]),
                frame(version, Command::Upd, stream, 8, &largest),
                frame(version, Command::Upd, stream, 8, &[0; 8]),
                frame(version, Command::Upd, stream, 4, &[0; 4]),
            ]);
        }
    }
    all
}

/// Of yamux.
pub(crate) fn yamux() -> Vec<Vec<u8>> {
    let mut all = vec![
        vec![9; 12],
        vec![0, 99, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        vec![0; 100],
    ];
    for stream in STREAMS {
        for kind in [Type::Data, Type::WindowUpdate, Type::Ping, Type::GoAway] {
            for flags in [0, 1, 2, 4, 8, 0xffff] {
                for length in [0, 1, u32::MAX] {
                    let header = yamux::Header {
                        kind,
                        flags: Flags(flags),
                        stream,
                        length,
                    };
                    all.push(header.to_bytes().to_vec());
                }
            }
        }
    }
    // Its end twice.
    let fin = yamux::Header {
        kind: Type::WindowUpdate,
        flags: Flags::FIN,
        stream: 1,
        length: 0,
    };
    all.push([fin.to_bytes(), fin.to_bytes()].concat());
    all
}

/// Of one stream in a conversation.
pub(crate) fn messages() -> Vec<Vec<u8>> {
    let mut all = vec![
        // Shorter than its header, longer than any, unknown, with a body where there is none.
        vec![0, 1, 0, 3, 0],
        vec![0, 1, 255, 255, 0],
        vec![0, 9, 0, 4],
        vec![0, 2, 0, 5, 1],
        vec![0, 3, 0, 8, 1, 2, 3, 4],
        vec![255; 100],
        vec![0; 100],
    ];
    let dial = Message::Dial.emit();
    let (end, push) = (Message::Eof.emit(), Message::Push(1).emit());
    all.extend([
        [dial, dial].concat(),
        [end, end].concat(),
        // Data behind the end.
        [&end[..], &push, b"x"].concat(),
        Message::Push(9000).emit().to_vec(),
        [Message::KeepAlive.emit(); 50].concat(),
    ]);
    all
}
