//! Settings of kcptun's dialects, today's and that of 2016.

use fulmar_config::{Client, Config, Kcptun, Log, Role, Server, Stats};

use super::{Change, Changes, Effect};

/// What has changed from `old` to `new`. A client makes its next session from what is new. A server's sessions are its drivers',
/// which were made at the start: only the target is looked at for each stream.
pub(crate) fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let mut found = Changes::new(&old.provenance, &new.provenance);
    let Config {
        role,
        tunnel,
        log,
        stats,
        threads,
        // It is in the environment, which does not change.
        sip003: _,
        provenance: _,
    } = old;
    let sessions = match (role, &new.role) {
        (Role::Client(old), Role::Client(new)) => {
            client(&mut found, old, new);
            Effect::NewConnections
        }
        (Role::Server(old), Role::Server(new)) => {
            server(&mut found, old, new);
            Effect::NextStart
        }
        // Somebody refuses it before.
        _ => Effect::NextStart,
    };
    settings(&mut found, tunnel, &new.tunnel, sessions);
    let Log {
        file,
        quiet,
        verbose,
    } = log;
    found.note("log", file, &new.log.file, Effect::NextStart);
    found.note("quiet", quiet, &new.log.quiet, Effect::Now);
    found.note("verbose", verbose, &new.log.verbose, Effect::NextStart);
    let Stats {
        snmp_log,
        http_listen,
        period,
    } = stats;
    let next = Effect::NextStart;
    found.note("snmplog", snmp_log, &new.stats.snmp_log, next);
    found.note("snmpperiod", period, &new.stats.period, next);
    found.note("http-listen", http_listen, &new.stats.http_listen, next);
    found.note("threads", threads, &new.threads, next);
    found.found
}

fn client(found: &mut Changes<'_>, old: &Client, new: &Client) {
    let Client {
        listen,
        remote,
        conn,
        autoexpire,
        scavenge_ttl,
    } = old;
    let sessions = Effect::NewConnections;
    found.note("localaddr", listen, &new.listen, Effect::NextStart);
    found.note("remoteaddr", remote, &new.remote, sessions);
    found.note("conn", conn, &new.conn, Effect::NextStart);
    found.note("autoexpire", autoexpire, &new.autoexpire, sessions);
    found.note("scavengettl", scavenge_ttl, &new.scavenge_ttl, sessions);
}

fn server(found: &mut Changes<'_>, old: &Server, new: &Server) {
    let Server {
        listen,
        also,
        target,
    } = old;
    let (was, is) = ((listen, also), (&new.listen, &new.also));
    found.note("listen", was, is, Effect::NextStart);
    found.note("target", target, &new.target, Effect::NewConnections);
}

fn settings(found: &mut Changes<'_>, old: &Kcptun, new: &Kcptun, effect: Effect) {
    let Kcptun {
        compat,
        key,
        key_is_default: _,
        crypt,
        crypt_unknown_name: _,
        mode,
        auto,
        nodelay,
        interval,
        resend,
        congestion_control,
        ack_no_delay,
        mtu,
        snd_wnd,
        rcv_wnd,
        fec,
        dscp,
        compression,
        smux,
        qpp,
        rate_limit,
        sock_buf,
        tcp,
        close_wait,
        close_wait_explicit: _,
    } = old;
    let first = |of: fulmar_config::Compat| of.first().map(|first| first.tuncrypt);
    found.note("compat", compat, &new.compat, effect);
    found.note_given("tuncrypt", first(*compat), first(new.compat), effect);
    found.note("key", key, &new.key, effect);
    found.note("crypt", crypt, &new.crypt, effect);
    found.note("mode", mode, &new.mode, effect);
    if let (Some(old), Some(new)) = (auto, &new.auto) {
        found.note("redundancy", old.redundancy, new.redundancy, effect);
        found.note("memory", old.memory, new.memory, effect);
    }
    found.note_given("nodelay", nodelay, &new.nodelay, effect);
    found.note_given("interval", interval, &new.interval, effect);
    found.note_given("resend", resend, &new.resend, effect);
    found.note_given("nc", congestion_control, &new.congestion_control, effect);
    found.note_given("acknodelay", ack_no_delay, &new.ack_no_delay, effect);
    found.note_given("mtu", mtu, &new.mtu, effect);
    found.note_given("sndwnd", snd_wnd, &new.snd_wnd, effect);
    found.note_given("rcvwnd", rcv_wnd, &new.rcv_wnd, effect);
    let shape = |fec: &Option<fulmar_config::Shards>| fec.map(|f| (f.data, f.parity));
    let (was, is) = (shape(fec).unzip(), shape(&new.fec).unzip());
    found.note_given("datashard", was.0, is.0, effect);
    found.note_given("parityshard", was.1, is.1, effect);
    found.note("dscp", dscp, &new.dscp, effect);
    found.note_given("nocomp", compression, &new.compression, effect);
    let fulmar_config::Smux {
        version,
        buffer,
        frame_size,
        stream_buffer,
        keep_alive,
    } = smux;
    found.note_given("smuxver", version, &new.smux.version, effect);
    found.note_given("smuxbuf", buffer, &new.smux.buffer, effect);
    found.note_given("framesize", frame_size, &new.smux.frame_size, effect);
    found.note_given("streambuf", stream_buffer, &new.smux.stream_buffer, effect);
    found.note_given("keepalive", keep_alive, &new.smux.keep_alive, effect);
    let qpp = (qpp, &new.qpp);
    found.note("QPP", qpp.0.is_some(), qpp.1.is_some(), effect);
    if let (Some(old), Some(new)) = qpp {
        found.note("QPPCount", old.count, new.count, effect);
        found.note("qpp-compat", old.generation, new.generation, effect);
    }
    found.note("ratelimit", rate_limit, &new.rate_limit, effect);
    found.note("sockbuf", sock_buf, &new.sock_buf, effect);
    // Its rules of the firewall are looked after from the start to the end.
    found.note("tcp", tcp, &new.tcp, Effect::NextStart);
    found.note_given("closewait", close_wait, &new.close_wait, effect);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fulmar_config::{Environment, from_bytes};

    use super::*;

    fn config(side: &str, more: &str) -> Config {
        let ends = match side {
            "client" => r#""localaddr": "127.0.0.1:1", "remoteaddr": "vps.example:29900""#,
            _ => r#""listen": ":29900", "target": "127.0.0.1:1""#,
        };
        let text = format!("{{{ends}, \"key\": \"k\"{more}}}");
        let path = Path::new("file.json");
        let loaded = from_bytes(path, text.as_bytes(), None, &Environment::default());
        loaded.expect("a configuration").config
    }

    fn said(side: &str, more: &str) -> Vec<String> {
        let changes = changes(&config(side, ""), &config(side, more));
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_reload_does_not_take_over_is_named() {
        let server = said(
            "server",
            r#", "target": "127.0.0.1:2", "key": "other", "quiet": true, "http_listen": "127.0.0.1:3""#,
        );
        assert_eq!(
            server,
            [
                "target changed: in effect for new connections",
                "key changed: takes effect at the next start",
                "quiet changed: in effect",
                "http_listen changed: takes effect at the next start",
            ]
        );
        let client = said(
            "client",
            r#", "localaddr": "127.0.0.1:2", "key": "other", "conn": 2, "mode": "fast3""#,
        );
        assert_eq!(
            client,
            [
                "localaddr changed: takes effect at the next start",
                "conn changed: takes effect at the next start",
                "key changed: in effect for new connections",
                // The interval that this means was not given.
                "mode changed: in effect for new connections",
            ]
        );
    }

    #[test]
    fn what_is_the_same_is_no_change() {
        for side in ["client", "server"] {
            assert!(said(side, "").is_empty());
            // A default that is written down.
            assert!(said(side, r#", "mode": "fast", "datashard": 10"#).is_empty());
        }
    }
}
