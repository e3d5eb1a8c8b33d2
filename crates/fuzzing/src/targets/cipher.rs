//! Targets of `fulmar-cipher`.

use std::cell::RefCell;

use fulmar_cipher::{
    LibevKey, MasterKey, Method, NonceSource, PacketCipher, Prober, Scheme, Verdict, derive_key,
    kcptun, libev, libev_probe,
};
use fulmar_wire::libev::Method as LibevMethod;

use crate::input::Input;

/// A run of datagrams from nobody knows whom, opened and probed; then the same bytes as bodies, sealed, refused by their maker,
/// damaged, and opened by the peer.
///
/// Input: a byte for the method, two for the segment length, one for where to damage, then the run.
pub fn cipher_open(data: &[u8]) {
    KEYED.with_borrow_mut(|keyed| open(keyed, data));
}

fn open(keyed: &mut Keyed, data: &[u8]) {
    let mut input = Input::new(data);
    let index = usize::from(input.byte()) % Method::ALL.len();
    let method = Method::ALL[index];
    let segment = usize::from(input.u16());
    let damage = usize::from(input.byte());
    let run = input.rest();

    let [cipher, peer] = &mut keyed.ciphers[index];
    assert_eq!(cipher.scheme(), Scheme::Kcptun(method));
    let overhead = cipher.overhead();
    let mut verdicts = vec![Verdict::Forged; 3];

    let effective = if segment == 0 || segment > run.len() {
        run.len()
    } else {
        segment
    };
    let mut opened = run.to_vec();
    cipher.open(&mut opened, segment, &mut verdicts);
    assert_eq!(opened.len(), run.len());
    assert_eq!(verdicts.len(), run.len().div_ceil(effective.max(1)));
    for (datagram, verdict) in run.chunks(effective.max(1)).zip(&verdicts) {
        assert_eq!(
            *verdict == Verdict::TooShort,
            datagram.len() < overhead.total()
        );
    }
    if run.len() < 256 {
        let found = keyed.prober.probe(run);
        assert!(found.is_none_or(|m| Method::ALL.contains(&m)));
    }

    let mut sealed = run.to_vec();
    cipher.seal(&mut sealed, segment);
    cipher.open(&mut sealed.clone(), segment, &mut verdicts);
    for (datagram, verdict) in run.chunks(effective.max(1)).zip(&verdicts) {
        let want = if datagram.len() < overhead.total() {
            Verdict::TooShort
        } else if method == Method::Null {
            Verdict::Ok
        } else {
            Verdict::Reflected
        };
        assert_eq!(*verdict, want);
    }
    if let Some(byte) = sealed.get_mut(damage) {
        *byte ^= 1;
    }
    let damaged = sealed.clone();
    peer.open(&mut sealed, segment, &mut verdicts);
    for (i, verdict) in verdicts.iter().enumerate() {
        let place = i * effective..((i + 1) * effective).min(run.len());
        let (before, after) = (&run[place.clone()], &sealed[place.clone()]);
        if before.len() < overhead.total() {
            assert_eq!(*verdict, Verdict::TooShort);
        } else if !place.contains(&damage) {
            let body = overhead.front..before.len() - overhead.back;
            assert_eq!(*verdict, Verdict::Ok);
            assert_eq!(before[body.clone()], after[body]);
        } else if method.is_authenticated() {
            assert_eq!(*verdict, Verdict::Forged, "{damaged:02x?}");
        }
    }
}

/// The same for the methods of kcptun-libev. What is sealed comes back to its maker besides, who refuses it.
///
/// Input: as for [`cipher_open`].
pub fn sealed_libev(data: &[u8]) {
    LIBEV.with_borrow_mut(|ends| seal_libev(ends, data));
}

fn seal_libev(ends: &mut [(LibevMethod, Ends)], data: &[u8]) {
    let mut input = Input::new(data);
    let index = usize::from(input.byte()) % ends.len();
    let segment = usize::from(input.u16());
    let damage = usize::from(input.byte());
    let run = input.rest();

    let (method, [ours, theirs]) = &mut ends[index];
    assert_eq!(ours.scheme(), Scheme::Libev(*method));
    let overhead = ours.overhead().back;
    let stride = if segment == 0 || segment > run.len() {
        run.len().max(1)
    } else {
        segment
    };
    let mut verdicts = vec![Verdict::Forged; 3];
    let mut opened = run.to_vec();
    ours.open(&mut opened, segment, &mut verdicts);
    assert_eq!(verdicts.len(), run.len().div_ceil(stride));
    for (datagram, verdict) in run.chunks(stride).zip(&verdicts) {
        assert_eq!(*verdict == Verdict::TooShort, datagram.len() <= overhead);
        assert_ne!(*verdict, Verdict::Reflected);
    }
    if run.len() < 256 && verdicts == [Verdict::Ok] {
        assert_eq!(libev_probe(&libev_key(), run), Some(*method));
    }

    let mut sealed = run.to_vec();
    ours.seal(&mut sealed, segment);
    let mut reflected = sealed.clone();
    ours.open(&mut reflected, segment, &mut verdicts);
    for (datagram, verdict) in run.chunks(stride).zip(&verdicts) {
        let long = datagram.len() > overhead;
        assert_eq!(*verdict == Verdict::Reflected, long);
    }
    if let Some(byte) = sealed.get_mut(damage) {
        *byte ^= 1;
    }
    theirs.open(&mut sealed, segment, &mut verdicts);
    assert_eq!(verdicts.len(), run.len().div_ceil(stride));
    for (i, verdict) in verdicts.iter().enumerate() {
        let place = i * stride..((i + 1) * stride).min(run.len());
        let want = if place.len() <= overhead {
            Verdict::TooShort
        } else if place.contains(&damage) {
            Verdict::Forged
        } else {
            let body = place.start..place.end - overhead;
            assert_eq!(run[body.clone()], sealed[body]);
            Verdict::Ok
        };
        assert_eq!(*verdict, want);
    }
}

/// Both ends of one method.
type Ends = [Box<dyn PacketCipher>; 2];

/// The key of most golden vectors.
fn libev_key() -> LibevKey {
    LibevKey::from_bytes(core::array::from_fn(|i| i as u8))
}

thread_local! {
    /// Two ends of every method. What they remember from input to input is how many nonces they made.
    static LIBEV: RefCell<[(LibevMethod, Ends); 4]> =
        RefCell::new(LibevMethod::SEALED.map(|method| {
            let end = |seed| libev(method, &libev_key(), NonceSource::seeded([seed; 32]));
            (method, [end(1), end(2)])
        }));
}

/// What takes long to make: some methods stretch the key. The nonces that ciphers draw are all that
/// one input leaves to the next.
struct Keyed {
    ciphers: Vec<Ends>,
    prober: Prober,
}

thread_local! {
    static KEYED: RefCell<Keyed> = RefCell::new(Keyed::new());
}

impl Keyed {
    /// With the key of the golden vectors, so that their packets open.
    fn new() -> Self {
        let key: MasterKey = derive_key(b"it's a secrect");
        let end = |method, seed| kcptun(method, &key, NonceSource::seeded([seed; 32]));
        Self {
            ciphers: Method::ALL.map(|m| [end(m, 7), end(m, 8)]).into(),
            prober: Prober::new(&key, &Method::ALL),
        }
    }
}
