//! Which frames are worth sending more than once.

use super::*;
use core::time::Duration;

const START: Instant = Instant::from_millis(u32::MAX as u64 - 1000);

fn opener(max_frame: u32) -> (Mux, StreamId) {
    let config = Config {
        max_frame,
        hello: false,
        send_buffer: 1 << 20,
        ..Config::new(Version::V1, Role::Opener)
    };
    let mut smux = Mux::new(config, START).expect("valid");
    let id = smux.open(START).expect("open");
    (smux, id)
}

/// The classes of all frames, and how many bytes those of sparse ones are.
fn classes(smux: &mut Mux, now: Instant) -> (Vec<Class>, usize) {
    let mut all = Vec::new();
    let mut bytes = 0;
    while let Some(frame) = smux.poll_frame(now) {
        all.push(frame.class());
        if frame.class() == Class::Sparse {
            bytes += frame.len();
        }
    }
    (all, bytes)
}

fn count(classes: &[Class], class: Class) -> usize {
    classes.iter().filter(|&&c| c == class).count()
}

#[test]
fn the_first_bytes_and_the_tail_are_sparse_and_the_middle_is_bulk() {
    let (mut a, id) = opener(1024);
    a.write(id, &[0; 100_000]).expect("open");
    let (all, _) = classes(&mut a, START);
    // SYN; the budget of 16384 pays for seven frames of 1032 bytes and the SYN, not for the eighth.
    assert_eq!(count(&all[..8], Class::Sparse), 8);
    assert_eq!(count(&all[8..all.len() - 1], Class::Bulk), all.len() - 9);
    assert_eq!(all.last(), Some(&Class::Sparse), "the rest pays for a tail");
    // Later the beginning is over.
    let later = START + Duration::from_secs(10);
    a.write(id, &[0; 100_000]).expect("open");
    let (all, _) = classes(&mut a, later);
    assert_eq!(count(&all, Class::Sparse), 1, "the tail");
    assert_eq!(all.last(), Some(&Class::Sparse));
}

#[test]
fn a_full_frame_costs_more_than_there_ever_is() {
    let (mut a, id) = opener(8192);
    a.write(id, &[0; 8192]).expect("open");
    let (all, _) = classes(&mut a, START);
    assert_eq!(all, [Class::Sparse, Class::Bulk]);
    a.write(id, &[0; 8000]).expect("open");
    assert_eq!(classes(&mut a, START).0, [Class::Sparse]);
}

#[test]
fn tokens_are_used_up_and_come_back() {
    let (mut a, id) = opener(8192);
    assert_eq!(classes(&mut a, START).0, [Class::Sparse]);
    let mut now = START;
    let mut message = |now| {
        a.write(id, &[0; 492]).expect("open");
        classes(&mut a, now).0 == [Class::Sparse]
    };
    // 1000 each, and 16 went for the SYN.
    for _ in 0..16 {
        assert!(message(now));
    }
    assert!(!message(now));
    // 368 are left; the missing 632 take 39.5 ms.
    now += Duration::from_millis(39);
    assert!(!message(now));
    now += Duration::from_millis(1);
    assert!(message(now));
    assert!(!message(now));
    // It never holds more than at first.
    now += Duration::from_secs(100_000);
    assert_eq!((0..20).filter(|_| message(now)).count(), 16);
    // The milliseconds wrap here.
    now = Instant::from_millis(2 * (1 << 32) - 10);
    assert_eq!((0..20).filter(|_| message(now)).count(), 16);
    now += Duration::from_millis(125);
    assert_eq!((0..20).filter(|_| message(now)).count(), 2);
}

#[test]
fn a_game_stays_sparse_for_an_hour() {
    let (mut a, id) = opener(8192);
    classes(&mut a, START);
    for tick in 0..50 * 3600 {
        let now = START + Duration::from_millis(20 * tick);
        a.write(id, &[0; 120]).expect("open");
        assert_eq!(classes(&mut a, now).0, [Class::Sparse], "tick {tick}");
    }
}

#[test]
fn sparse_data_never_exceeds_the_budget() {
    // Messages that each would be a tail, at ten times the rate.
    let (mut a, id) = opener(8192);
    let mut sparse = 0;
    let mut last = START;
    for tick in 0..60_000 {
        last = START + Duration::from_millis(tick);
        a.write(id, &[0; 80]).expect("open");
        sparse += classes(&mut a, last).1;
    }
    let seconds = (last - START).as_millis() as usize;
    let most = SPARSE_BURST as usize + SPARSE_RATE as usize * seconds / 1000;
    assert!(2 * sparse <= most, "{sparse}");
    assert!(2 * sparse + 1000 >= most, "{sparse}");
}

#[test]
fn streams_have_budgets_of_their_own() {
    let (mut a, id) = opener(1024);
    a.write(id, &[0; 50_000]).expect("open");
    classes(&mut a, START);
    a.write(id, &[0; 900]).expect("open");
    assert_eq!(classes(&mut a, START).0, [Class::Bulk], "nothing is left");
    let other = a.open(START).expect("open");
    a.write(other, &[0; 900]).expect("open");
    assert_eq!(classes(&mut a, START).0, [Class::Sparse; 2]);
}

#[test]
fn control_is_sparse_and_mostly_free() {
    let config = |role| Config {
        stream_buffer: 100,
        ..Config::new(Version::V2, role)
    };
    let [mut a, mut b] =
        [Role::Opener, Role::Acceptor].map(|role| Mux::new(config(role), START).expect("valid"));
    let id = a.open(START).expect("open");
    a.ping();
    let mut bytes = Vec::new();
    for _ in 0..3 {
        let frame = a.poll_frame(START).expect("hello, NOP, SYN");
        assert_eq!(frame.class(), Class::Sparse);
        bytes.extend(frame.parts().concat());
    }
    b.handle_input(START, &bytes).expect("frames");
    settle(&mut a, &mut b, START);
    let [.., Event::Opened(sb)] = events(&mut b)[..] else {
        panic!("no stream");
    };
    a.write(id, &[0; 20_000]).expect("open");
    while a.poll_frame(START).is_some() {}
    a.write(id, &[0; 8000]).expect("open");
    assert_eq!(a.poll_frame(START).expect("PSH").class(), Class::Bulk);
    // Not even the end needs tokens.
    let stream = a.streams.get_mut(id).expect("held");
    assert!(!stream.budget.pay(START, 8000));
    while stream.budget.pay(START, 8) {}
    a.finish(START, id);
    let end = a.poll_frame(START).expect("FIN");
    assert_eq!(end.head()[1], Command::Fin.number());
    assert_eq!(end.class(), Class::Sparse);
    // Updates and resets leave the budget alone.
    for _ in 0..1000 {
        b.handle_input(
            START,
            &frame(Version::V2, Command::Psh, id.wire(), 60, &[0; 60]),
        )
        .expect("data");
        b.consume(START, sb, 60);
        let update = b.poll_frame(START).expect("UPD");
        assert_eq!(update.head()[1], Command::Upd.number());
        assert_eq!(update.class(), Class::Sparse);
    }
    b.write(sb, &[0; 8000]).expect("open");
    assert_eq!(b.poll_frame(START).expect("PSH").class(), Class::Sparse);
    b.reset(sb, ResetReason::ABORTED);
    assert_eq!(b.poll_frame(START).expect("RST").class(), Class::Sparse);
}
