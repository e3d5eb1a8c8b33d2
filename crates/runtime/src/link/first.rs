//! The same for kcptun of spring 2016.

use fulmar_cipher::{
    MasterKey, NonceSource, NonceSpace, PacketCipher, Prober, Scheme, Verdict, kcptun2016_key,
};
use fulmar_config::{Config, First};
use fulmar_session::dialect::Probe;
use fulmar_session::dialect::kcptun2016::{Kcptun2016, Settings, Vectors};
use fulmar_wire::kcptun;
use fulmar_wire::kcptun2016::Method;

/// Keys and settings.
pub(super) struct Link {
    key: MasterKey,
    settings: Settings,
    first: First,
}

/// Names a peer of today's kcptun that turns out to speak this dialect with the same password, which makes `key` here.
pub(super) fn probe(key: &MasterKey) -> Probe {
    let nonces = NonceSource::fixed(Vec::new());
    let mut cipher = fulmar_cipher::kcptun2016(Method::Sealed, key, nonces);
    let mut verdicts = Vec::new();
    Box::new(move |datagram| {
        cipher.open(&mut datagram.to_vec(), 0, &mut verdicts);
        (verdicts == [Verdict::Ok]).then(|| cipher.scheme())
    })
}

impl Link {
    /// `None` unless the configuration asks for this dialect. `today`: the settings that the same options make in today's.
    pub(super) fn new(config: &Config, today: &super::Settings) -> Option<Self> {
        let first = config.tunnel.compat.first()?;
        let key = &config.tunnel.key;
        Some(Self {
            key: kcptun2016_key(key.as_bytes()),
            settings: Settings {
                server: today.server,
                methods: first.methods,
                mtu: today.mtu,
                profile: today.profile,
                snd_wnd: today.snd_wnd,
                rcv_wnd: today.rcv_wnd,
                ack_no_delay: today.ack_no_delay,
                mux_buffer: today.smux_buffer,
                frame_size: today.frame_size,
                stream_buffer: today.stream_buffer,
                keep_alive: today.keep_alive,
                fin_hold: today.fin_hold,
                rate_limit: today.rate_limit,
                auto: today.auto,
            },
            first,
        })
    }

    /// `today`: the key that the same password makes in today's kcptun, to name a peer that speaks that.
    pub(super) fn dialect(&self, today: &MasterKey) -> Kcptun2016 {
        let today = today.clone();
        let mut prober = None;
        let probe = move |datagram: &[u8]| {
            prober
                .get_or_insert_with(|| Prober::new(&today, &kcptun::Method::ALL))
                .probe(datagram)
                .map(Scheme::Kcptun)
        };
        Kcptun2016::new(self.settings.clone(), self.key.clone(), Box::new(probe))
    }

    /// The ciphers of one socket: several only at a server whose key is empty.
    pub(super) fn ciphers(&self, nonces: &NonceSpace) -> Vec<Box<dyn PacketCipher>> {
        let cipher = |&method| fulmar_cipher::kcptun2016(method, &self.key, nonces.source());
        self.settings.methods.iter().map(cipher).collect()
    }

    /// The cipher of a client.
    pub(super) fn cipher(&self, nonces: &NonceSpace) -> Box<dyn PacketCipher> {
        let method = self.settings.methods.first().copied();
        fulmar_cipher::kcptun2016(method.unwrap_or(Method::Sealed), &self.key, nonces.source())
    }

    /// How a session begins.
    pub(super) fn vectors(&self, nonces: &NonceSpace) -> Vectors {
        let mut random = [0; 32];
        nonces.source().fill(&mut random);
        Vectors::new(self.first.variant, self.first.tuncrypt, random)
    }
}
