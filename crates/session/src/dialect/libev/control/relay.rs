//! Services that servers have made known here (docs/spec/kcptun-libev.md, section 12, steps 1 and 3).

use std::collections::HashMap;
use std::net::SocketAddr;

use fulmar_wire::libev::MAX_SERVICE_ID;
use fulmar_wire::time::Instant;

use crate::transmit::Path;

/// Services at one time, 200 bytes each and their names.
const MOST: usize = 16_384;

#[derive(Copy, Clone, Debug)]
struct Service {
    local: SocketAddr,
    path: Path,
    until: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Services(HashMap<Box<[u8]>, Service>);

impl Services {
    /// Makes `id` known until then, in the place of who had it; `false` when there is no room.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        id: &[u8],
        local: SocketAddr,
        path: Path,
        until: Instant,
    ) -> bool {
        let service = Service { local, path, until };
        if let Some(known) = self.0.get_mut(id) {
            *known = service;
            return true;
        }
        if id.len() > MAX_SERVICE_ID {
            return false;
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, s| s.until > now);
        }
        if self.0.len() >= MOST {
            return false;
        }
        self.0.insert(id.into(), service);
        true
    }

    /// What the server of `id` says its address is, and where it is heard from.
    pub(super) fn find(&self, now: Instant, id: &[u8]) -> Option<(SocketAddr, Path)> {
        let service = self.0.get(id).filter(|s| s.until > now)?;
        Some((service.local, service.path))
    }
}
