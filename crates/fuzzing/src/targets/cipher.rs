//! Targets of `fulmar-cipher`.

use std::cell::RefCell;

use fulmar_cipher::{
    MasterKey, Method, NonceSource, PacketCipher, Prober, Verdict, derive_key, kcptun,
};

use crate::input::Input;

/// A run of datagrams from nobody knows whom, opened and probed; then the same bytes as bodies, sealed, damaged,
/// and opened.
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

    let cipher = &mut keyed.ciphers[index];
    assert_eq!(cipher.scheme(), fulmar_cipher::Scheme::Kcptun(method));
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
    if let Some(byte) = sealed.get_mut(damage) {
        *byte ^= 1;
    }
    let damaged = sealed.clone();
    cipher.open(&mut sealed, segment, &mut verdicts);
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

/// What takes long to make: some methods stretch the key. The nonces that ciphers draw are all that
/// one input leaves to the next.
struct Keyed {
    ciphers: Vec<Box<dyn PacketCipher>>,
    prober: Prober,
}

thread_local! {
    static KEYED: RefCell<Keyed> = RefCell::new(Keyed::new());
}

impl Keyed {
    /// With the key of the golden vectors, so that their packets open.
    fn new() -> Self {
        let key: MasterKey = derive_key(b"it's a secrect");
        let cipher = |method| kcptun(method, &key, NonceSource::seeded([7; 32]));
        Self {
            ciphers: Method::ALL.map(cipher).into(),
            prober: Prober::new(&key, &Method::ALL),
        }
    }
}
