//! kcptun-libev's file: every key at the ends of its range and one beyond, every refusal, warning and note, and what the
//! model says (docs/spec/kcptun-libev.md, sections 1 and 3).

use std::path::Path;
use std::time::Duration;

use fulmar_config::libev::{
    Crypto, Explicit, KcpSettings, LIBEV_KEYS, LibevKind, LibevRole, Mode, Obfs, Ours, Place,
    Secret, Sink, TcpSettings, UdpSettings,
};
use fulmar_config::{
    AnyLoaded, Dialect, Environment, LibevConfig, LibevLoaded, Side, any_from_bytes, any_from_file,
    libev_from_bytes, libev_from_file, recognise, report,
};
use fulmar_wire::libev::Method;
use proptest::prelude::*;

const PSK: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A client with a key, and `more` behind it.
fn client(more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!(
        "{{\"listen\":\":1\",\"kcp_connect\":\"h:2\",\"method\":\"aes256gcm\",\"psk\":\"{PSK}\"{comma}\n{more}}}"
    )
}

/// Addresses `addresses` with a key.
fn sealed(addresses: &str) -> String {
    format!("{{\"method\":\"aes256gcm\",\"psk\":\"{PSK}\",\n{addresses}}}")
}

fn load(text: &str) -> (Option<LibevConfig>, Vec<String>) {
    let (config, problems) = match libev_from_bytes(Path::new("c.json"), text.as_bytes()) {
        Ok(LibevLoaded { config, problems }) => (Some(config), problems),
        Err(failure) => (None, failure.problems),
    };
    let errors = problems.iter().any(|p| p.is_fatal(false));
    assert_eq!(config.is_none(), errors, "{text}");
    let problems = problems
        .iter()
        .map(|p| format!("{:?} {p}", p.severity))
        .collect();
    (config, problems)
}

fn good(text: &str) -> LibevConfig {
    let (config, problems) = load(text);
    assert_eq!(problems, [""; 0], "{text}");
    config.expect(text)
}

/// What is said of `text`, and whether it would start.
fn says(text: &str, expected: &[&str]) -> Option<LibevConfig> {
    let (config, problems) = load(text);
    assert_eq!(problems, expected, "{text}");
    config
}

#[test]
fn a_bare_client_has_the_defaults() {
    let config = good(&client(""));
    let LibevRole::Client {
        listen,
        place: Place::Direct(server),
    } = &config.role
    else {
        panic!("{config:?}");
    };
    assert_eq!(
        (listen.to_string(), server.to_string()),
        (":1".into(), "h:2".into())
    );
    assert_eq!(config.crypto.method(), Method::Aes256Gcm);
    let seconds = Duration::from_secs;
    assert_eq!(config.keepalive, Some(seconds(25)));
    assert_eq!(
        [config.timeout, config.linger, config.time_wait],
        [600, 30, 120].map(seconds)
    );
    assert_eq!(
        config.kcp,
        KcpSettings {
            mtu: 1400,
            sndwnd: 256,
            rcvwnd: 256,
            nodelay: 1,
            interval: Duration::from_millis(100),
            resend: 0,
            nc: true,
            flush: 1,
            explicit: Explicit::default(),
        }
    );
    assert_eq!(
        config.tcp,
        TcpSettings {
            reuseport: false,
            keepalive: false,
            nodelay: true,
            sndbuf: 0,
            rcvbuf: 0,
        }
    );
    assert_eq!(
        config.udp,
        UdpSettings {
            reuseport: false,
            sndbuf: 0,
            rcvbuf: 0,
        }
    );
    assert_eq!((config.log.level, config.log.sink), (4, Sink::Stdout));
    assert_eq!(
        config.ours,
        Ours {
            mode: Mode::Auto,
            redundancy: 25,
            memory: 64 << 20,
            delay_eof: false,
            accept_bad_checksums: false,
        }
    );
    assert_eq!(
        (config.obfs, config.netdev, config.user),
        (None, None, None)
    );
    assert_eq!((config.http_listen, config.client_bind), (None, None));
    assert!(config.service_id.is_empty());
    assert!(config.provenance.is_explicit("psk"));
    assert!(!config.provenance.is_explicit("kcp.mtu"));
}

#[test]
fn every_key_arrives() {
    let config = good(&client(
        r#""kcp_bind":"[::1]:3","http_listen":"127.0.0.1:4","netdev":"fifteen-letters","keepalive":0,
        "timeout":60,"linger":5,"time_wait":3600,"loglevel":8,"log":"syslog","user":"nobody:",
        "kcp":{"mtu":300,"sndwnd":16,"rcvwnd":65535,"nodelay":2,"interval":10,"resend":3,"nc":0,"flush":2},
        "tcp":{"reuseport":true,"keepalive":true,"nodelay":false,"sndbuf":4096,"rcvbuf":33554432},
        "udp":{"reuseport":true,"sndbuf":4096,"rcvbuf":33554432},
        "fulmar":{"mode":"auto","redundancy":0,"memory":1048576,"delay_eof":true,"accept_keyless":true}"#,
    ));
    assert_eq!(
        config.client_bind.map(|a| a.to_string()),
        Some("[::1]:3".into())
    );
    assert_eq!(config.http_listen.map(|a| a.port.number), Some(4));
    assert_eq!(config.netdev.as_deref(), Some("fifteen-letters"));
    assert_eq!(config.keepalive, None);
    assert_eq!(config.timeout.as_secs(), 60);
    assert_eq!(config.linger.as_secs(), 5);
    assert_eq!(config.time_wait.as_secs(), 3600);
    assert_eq!((config.log.level, config.log.sink), (8, Sink::Syslog));
    assert_eq!(config.user.as_deref(), Some("nobody:"));
    let kcp = config.kcp;
    assert_eq!((kcp.mtu, kcp.sndwnd, kcp.rcvwnd), (300, 16, 65_535));
    assert_eq!(
        (kcp.nodelay, kcp.resend, kcp.nc, kcp.flush),
        (2, 3, false, 2)
    );
    assert_eq!(kcp.interval, Duration::from_millis(10));
    assert_eq!(
        kcp.explicit,
        Explicit {
            mtu: true,
            sndwnd: true,
            rcvwnd: true,
            profile: true,
        }
    );
    let tcp = config.tcp;
    assert_eq!(
        (tcp.reuseport, tcp.keepalive, tcp.nodelay),
        (true, true, false)
    );
    assert_eq!((tcp.sndbuf, tcp.rcvbuf), (4096, 33_554_432));
    let udp = config.udp;
    assert_eq!(
        (udp.reuseport, udp.sndbuf, udp.rcvbuf),
        (true, 4096, 33_554_432)
    );
    let ours = config.ours;
    assert_eq!((ours.mode, ours.redundancy), (Mode::Auto, 0));
    assert_eq!((ours.memory, ours.delay_eof), (1 << 20, true));
}

#[test]
fn both_ends_of_every_range_and_one_beyond() {
    let mut seen = 0;
    for key in &LIBEV_KEYS {
        let LibevKind::Int { min, max, .. } = key.kind else {
            continue;
        };
        seen += 1;
        let file = |value: &str| match key.name.split_once('.') {
            None => client(&format!("\"{}\":{value}", key.name)),
            Some((object, name)) => client(&format!("\"{object}\":{{\"{name}\":{value}}}")),
        };
        for value in [min, max] {
            let (config, problems) = load(&file(&value.to_string()));
            assert!(config.is_some(), "{} {value}: {problems:?}", key.name);
        }
        let mut beyond = vec![
            (max + 1).to_string(),
            "99999999999999999999".into(),
            "-1".into(),
        ];
        if min > 0 {
            beyond.push((min - 1).to_string());
        }
        for value in beyond {
            let (_, problems) = load(&file(&value));
            let [problem] = problems.as_slice() else {
                panic!("{} {value}: {problems:?}", key.name);
            };
            assert!(problem.starts_with("Error c.json:2:"), "{problem}");
            assert!(
                problem.contains(&format!("\"{}\": {value} is out of range", key.name)),
                "{problem}"
            );
            assert!(
                problem.contains(&format!("write {min} to {max}")),
                "{problem}"
            );
        }
        for (value, what) in [
            ("5.0", "5.0 is not a whole number"),
            ("1e2", "1e2 is not a whole number"),
            ("\"5\"", "\"5\" is in quotes"),
            ("true", "this is true or false"),
            ("{}", "this is an object"),
        ] {
            let (_, problems) = load(&file(value));
            assert!(problems[0].contains(what), "{problems:?}");
        }
    }
    assert!(seen > 15);
}

#[test]
fn types_are_strict() {
    for key in &LIBEV_KEYS {
        let file = |value: &str| match key.name.split_once('.') {
            None => format!("{{\"{}\":{value}}}", key.name),
            Some((object, name)) => format!("{{\"{object}\":{{\"{name}\":{value}}}}}"),
        };
        let (_, problems) = load(&file("[]"));
        assert!(problems[0].contains("this is a list"), "{problems:?}");
        let (_, problems) = load(&file("null"));
        assert!(
            problems[0].contains("null counts as not given"),
            "{problems:?}"
        );
        assert!(problems[0].starts_with("Warning "), "{problems:?}");
        match key.kind {
            LibevKind::Int { .. } => {}
            LibevKind::Bool(_) => {
                let (_, problems) = load(&file("2"));
                assert!(
                    problems[0].contains("this is a number; write true or false"),
                    "{problems:?}"
                );
                let (_, problems) = load(&file("\"true\""));
                assert!(
                    problems[0].contains("\"true\" is in quotes"),
                    "{problems:?}"
                );
            }
            LibevKind::Secret => {
                let (_, problems) = load(&file("271828"));
                assert!(
                    problems[0].contains("this is a number, not a text"),
                    "{problems:?}"
                );
                assert!(!problems[0].contains("271828"));
            }
            _ => {
                let (_, problems) = load(&file("271828"));
                assert!(
                    problems[0].contains("271828 is not in quotes"),
                    "{problems:?}"
                );
                let (_, problems) = load(&file("\"a\\u0000b\""));
                assert!(problems[0].contains("NUL"), "{problems:?}");
                let (_, problems) = load(&file("\"\\ud800\""));
                assert!(problems[0].contains("not UTF-8"), "{problems:?}");
            }
        }
    }
    says(
        &client("\"kcp\":3"),
        &["Error c.json:2:7, \"kcp\": this is a number; write an object: {\"key\": value, …}"],
    );
}

#[test]
fn roles() {
    let role = |addresses: &str| good(&sealed(addresses)).role;
    let name = |addresses: &str| role(addresses).name();
    assert_eq!(name(r#""connect":"h:1","kcp_bind":":2""#), "server");
    assert_eq!(name(r#""listen":":1","kcp_connect":"h:2""#), "client");
    assert_eq!(
        name(r#""connect":"h:1","rendezvous_server":"r:2""#),
        "server"
    );
    assert_eq!(name(r#""listen":":1","rendezvous_server":"r:2""#), "client");
    assert_eq!(name(r#""kcp_bind":":1""#), "relay");
    assert_eq!(
        name(r#""kcp_bind":":1","rendezvous_server":"r:2""#),
        "rendezvous server"
    );
    for end in [r#""connect":"h:1""#, r#""listen":":1""#] {
        for (bind, expected) in [("", None), (r#","kcp_bind":":3""#, Some(":3"))] {
            let text = format!("{end},\"rendezvous_server\":\"r:2\",\"service_id\":\"né\"{bind}");
            let config = good(&sealed(&text));
            let Some(Place::Rendezvous { relay, bind }) = config.role.place() else {
                panic!("{config:?}");
            };
            assert_eq!(relay.to_string(), "r:2");
            assert_eq!(bind.as_ref().map(ToString::to_string).as_deref(), expected);
            assert_eq!(config.service_id, "né".as_bytes());
            assert_eq!(config.client_bind, None);
        }
    }
}

#[test]
fn refusals_of_roles() {
    for (addresses, problem) in [
        (
            r#""listen":":1","connect":"h:2","kcp_bind":":3""#,
            "Error c.json:2:10, \"listen\": \"listen\" makes this a client and \"connect\" a server; remove one of them",
        ),
        (
            r#""listen":":1""#,
            "Error c.json: a client (it has \"listen\") needs \"kcp_connect\" or \"rendezvous_server\", and neither is given; write \"kcp_connect\": \"server:port\"",
        ),
        (
            r#""connect":"h:1""#,
            "Error c.json: a server (it has \"connect\") needs \"kcp_bind\" or \"rendezvous_server\", and neither is given; write \"kcp_bind\": \":port\"",
        ),
        (
            r#""kcp_connect":"h:1","kcp_bind":":2""#,
            "Error c.json: \"kcp_connect\" is a client's key, and a client needs \"listen\", which is not given; write \"listen\": \"127.0.0.1:port\"",
        ),
        (
            r#""rendezvous_server":"r:1""#,
            "Error c.json: no address is given; write \"listen\" and \"kcp_connect\" for a client, \"connect\" and \"kcp_bind\" for a server, \"kcp_bind\" alone for a relay",
        ),
        (
            r#""listen":":1","kcp_connect":"h:2","rendezvous_server":"r:3""#,
            "Error c.json:2:29, \"kcp_connect\": a client either connects to its server or finds it at \"rendezvous_server\"; remove one of the two keys",
        ),
        (
            r#""listen":":1","rendezvous_server":"r:3","keepalive":0"#,
            "Error c.json:2:53, \"keepalive\": 0 turns off what holds the way through the NATs open, which \"rendezvous_server\" needs; write 1 to 25 s",
        ),
        (
            r#""listen":"1","kcp_connect":"h:2""#,
            "Error c.json:2:10, \"listen\": \"1\" has no port; write \"host:port\", or \":port\" for any address",
        ),
        (
            r#""listen":":1","kcp_connect":":2""#,
            "Error c.json:2:29, \"kcp_connect\": \":2\" has no host; write the host to connect to before the colon",
        ),
    ] {
        assert_eq!(says(&sealed(addresses), &[problem]), None);
    }
    let id = "x".repeat(257);
    says(
        &sealed(&format!(
            r#""listen":":1","rendezvous_server":"r:3","service_id":"{id}""#
        )),
        &[
            "Error c.json:2:54, \"service_id\": the name has 257 bytes, and at most 256 are possible; write a shorter one",
        ],
    );
    good(&sealed(&format!(
        r#""listen":":1","rendezvous_server":"r:3","service_id":"{}""#,
        &id[1..]
    )));
    // A value that is refused is not missing as well.
    says(
        &sealed(r#""listen":1,"kcp_connect":"h:2""#),
        &[
            "Error c.json:2:10, \"listen\": 1 is not in quotes; write \"host:port\", IPv6 addresses in brackets, nothing before the colon for any",
        ],
    );
}

/// All mistakes are told at once, in the order of section 3.2.
#[test]
fn the_order_of_checks() {
    let text = format!(
        r#"{{"psk":"{PSK}","password":"x","keepalive":0,"rendezvous_server":"r:1","service_id":"{}","listen":":1","connect":"h:2"}}"#,
        "x".repeat(300)
    );
    let (_, problems) = load(&text);
    let order = ["\"service_id\"", "\"listen\"", "\"keepalive\"", "\"psk\""];
    let found: Vec<usize> = order
        .iter()
        .map(|key| {
            let key = format!(", {key}: ");
            problems
                .iter()
                .position(|p| p.starts_with("Error ") && p.contains(&key))
                .expect("said")
        })
        .collect();
    assert!(found.is_sorted(), "{problems:?}");
    let (_, problems) = load(
        &text
            .replace("\"listen\":\":1\",", "")
            .replace("rendezvous_server", "x"),
    );
    let position = |part: &str| {
        problems
            .iter()
            .position(|p| p.contains(part))
            .expect("said")
    };
    assert!(position("a server (it has") < position("only one of them can be the key"));
}

#[test]
fn keys_and_methods() {
    for method in Method::SEALED {
        let text = client("").replace("aes256gcm", method.name());
        let config = good(&text);
        let Crypto::Sealed {
            method: got,
            secret: Secret::Psk(psk),
        } = &config.crypto
        else {
            panic!("{config:?}");
        };
        assert_eq!((*got, psk.as_bytes()[31]), (method, 31));
    }
    let start = r#"{"listen":":1","kcp_connect":"h:2","#;
    let config = good(&format!(
        r#"{start}"method":"xsalsa20poly1305","password":"sixteen letters!"}}"#
    ));
    let Crypto::Sealed {
        secret: Secret::Password(key),
        ..
    } = &config.crypto
    else {
        panic!("{config:?}");
    };
    assert_eq!(key.as_bytes(), b"sixteen letters!");
    let config = says(
        &format!("{start}\n\"method\":\"xsalsa20poly1305\",\"password\":\"\"}}"),
        &[
            "Warning c.json:2:40, \"password\": whoever records packets can try out passwords of 0 bytes cheaply; write \"psk\" with what fulmar genpsk xsalsa20poly1305 prints, at both ends",
        ],
    );
    assert!(config.is_some());
    let config = says(
        &format!("{start}\n\"password\":\"x\"}}"),
        &[
            "Mistake c.json:2:12, \"password\": NOTHING IS ENCRYPTED: without \"method\" the key is not used; write \"method\": \"xchacha20poly1305_ietf\", at the other end as well, or remove the key",
        ],
    );
    assert_eq!(config.expect("starts").crypto, Crypto::Plain);
    let config = says(
        &format!("{start}\n\"psk\":\"x\"}}"),
        &[
            "Mistake c.json:2:7, \"psk\": NOTHING IS ENCRYPTED: without \"method\" the key is not used; write \"method\": \"xchacha20poly1305_ietf\", at the other end as well, or remove the key",
        ],
    );
    assert_eq!(config.expect("starts").crypto, Crypto::Plain);
    let config = says(
        r#"{"listen":":1","kcp_connect":"h:2"}"#,
        &[
            "Warning c.json: nothing is encrypted: anyone can read, change and use this tunnel; write \"method\" and \"psk\" at both ends; fulmar genpsk METHOD makes a key",
        ],
    );
    assert_eq!(config.expect("starts").crypto, Crypto::Plain);
    let keyless = format!("{start}\n\"method\":\"aes256gcm\"}}");
    says(
        &keyless,
        &[
            "Error c.json:2:10, \"method\": neither \"psk\" nor \"password\" is given, and kcptun-libev then takes a key that everybody knows; write \"psk\" with what fulmar genpsk aes256gcm prints, at both ends; \"fulmar\": {\"accept_keyless\": true} takes the known key",
        ],
    );
    let config = says(
        &keyless.replace('\n', "\"fulmar\":{\"accept_keyless\":true},\n"),
        &[
            "Warning c.json:2:10, \"method\": the key is the one that everybody knows: anyone can read, change and use this tunnel; write \"psk\" at both ends",
        ],
    );
    let config = config.expect("starts");
    let Crypto::Sealed {
        secret: Secret::Psk(psk),
        ..
    } = &config.crypto
    else {
        panic!("{config:?}");
    };
    assert_eq!(psk.as_bytes(), &[0xdb; 32]);
    assert!(report::libev_lines(&config).join("\n").contains("PUBLIC"));
    says(
        &format!("{start}\n\"method\":\"aes-256-gcm\",\"psk\":\"{PSK}\"}}"),
        &[
            "Error c.json:2:10, \"method\": \"aes-256-gcm\" is no method; did you mean \"aes256gcm\"?",
        ],
    );
    says(
        &format!("{start}\n\"method\":\"none\",\"psk\":\"{PSK}\"}}"),
        &[
            "Error c.json:2:10, \"method\": \"none\" is no method; write one of xchacha20poly1305_ietf, xsalsa20poly1305, chacha20poly1305_ietf, aes256gcm, in double quotes",
        ],
    );
    says(
        &client("\"password\":\"x\""),
        &[
            "Error c.json:1:63, \"psk\": there is a \"password\", too, and only one of them can be the key; remove one of them",
        ],
    );
}

#[test]
fn golden_psks() {
    let vectors = fulmar_testkit::vectors::load("kcptun-libev/kdf.json");
    let list = |name: &str| vectors[name].as_array().expect(name).clone();
    let quoted = |case: &serde_json::Value| case["psk"].to_string();
    for case in list("psk") {
        good(&client("").replace(&format!("\"{PSK}\""), &quoted(&case)));
    }
    for case in list("psk_rejected") {
        let (config, problems) = load(&client("").replace(&format!("\"{PSK}\""), &quoted(&case)));
        assert_eq!(config, None);
        assert!(
            problems[0].contains("this is not 32 bytes in base64: "),
            "{problems:?}"
        );
        assert!(
            !problems[0].contains(case["psk"].as_str().expect("psk")),
            "shown"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn obfuscation() {
    let client_of = |name: &str| client(&format!("\"obfs\":\"{name}\""));
    assert_eq!(good(&client_of("dpi/tcp-wnd")).obfs, Some(Obfs::TcpWnd));
    assert_eq!(good(&client_of("dpi/tcp")).obfs, Some(Obfs::Tcp));
    says(
        &client_of("dpi/tpc"),
        &["Error c.json:2:8, \"obfs\": \"dpi/tpc\" is no obfuscation; did you mean \"dpi/tcp\"?"],
    );
    says(
        &sealed(r#""obfs":"dpi/tcp","kcp_bind":":1""#),
        &["Error c.json:2:8, \"obfs\": a relay has no obfuscation; remove it"],
    );
    says(
        &sealed(r#""obfs":"dpi/tcp","listen":":1","rendezvous_server":"r:2""#),
        &[
            "Error c.json:2:8, \"obfs\": obfuscation and \"rendezvous_server\" exclude each other; remove one of them",
        ],
    );
    let (_, problems) = load(r#"{"listen":":1","kcp_connect":"h:2","obfs":"dpi/tcp"}"#);
    assert_eq!(
        problems[1],
        "Error c.json:1:43, \"obfs\": obfuscation needs encryption; write \"method\" and \"psk\", or remove it"
    );
    let ours = good(&client(
        "\"obfs\":\"dpi/tcp\",\"fulmar\":{\"accept_bad_checksums\":true}",
    ))
    .ours;
    assert!(ours.accept_bad_checksums);
}

#[test]
fn what_starts_with_a_word() {
    for (more, problem) in [
        (
            "\"service_id\":\"x\"",
            "Note c.json:2:14, \"service_id\": it has no effect without \"rendezvous_server\"; remove it",
        ),
        (
            "\"kcp\":{\"rcvwnd\":65536}",
            "Note c.json:2:17, \"kcp.rcvwnd\": 65536 acts as 65535: the wire cannot say more, and kcptun-libev says 0; write 128 to 65535 segments",
        ),
        (
            "\"kcp\":{\"rcvwnd\":127}",
            "Note c.json:2:17, \"kcp.rcvwnd\": 127 acts as 128, as in kcptun-libev; write 128 to 65535 segments",
        ),
        (
            "\"kcp\":{\"nodelay\":1}",
            "Note c.json: the sender does what the keys of \"kcp\" say and does not follow the path; remove nodelay, interval, resend, nc and flush, or write \"fulmar\": {\"mode\": \"auto\"}",
        ),
        (
            "\"tcp\":{\"sndbuf\":4095}",
            "Warning c.json:2:17, \"tcp.sndbuf\": 4095 bytes hold hardly a packet; write 4096 to 33554432 bytes, or 0 for the system's choice",
        ),
        (
            "\"udp\":{\"rcvbuf\":1}",
            "Warning c.json:2:17, \"udp.rcvbuf\": 1 bytes hold hardly a packet; write 4096 to 33554432 bytes, or 0 for the system's choice",
        ),
        (
            "\"tcp\":{\"nodelay\":0}",
            "Warning c.json:2:18, \"tcp.nodelay\": 0 counts as false, as it did until v2.3.4; write false",
        ),
        (
            "\"udp\":{\"reuseport\":1}",
            "Warning c.json:2:20, \"udp.reuseport\": 1 counts as true, as it did until v2.3.4; write true",
        ),
        (
            "\"kcp\":null",
            "Warning c.json:2:7, \"kcp\": null counts as not given; kcptun-libev refuses it since v2.3.5; remove the key",
        ),
        (
            "\"timeout\":null",
            "Warning c.json:2:11, \"timeout\": null counts as not given; kcptun-libev refuses it since v2.3.5; remove the key",
        ),
        (
            "\"log\":\"stdrr\"",
            "Mistake c.json:2:7, \"log\": \"stdrr\" is no place for a log, and counts as not given; did you mean \"stderr\"?",
        ),
        (
            "\"user\":\"\"",
            "Mistake c.json:2:8, \"user\": it names neither a user nor a group and counts as not given; write \"user\", \"user:group\" or \":group\", or remove it",
        ),
        (
            "\"netdev\":\"\"",
            "Note c.json:2:10, \"netdev\": an empty text counts as not given; remove the key",
        ),
        (
            "\"udp_bind\":\":3\"",
            "Note c.json:2:1: \"udp_bind\" is the old name of \"kcp_bind\"; write \"kcp_bind\"",
        ),
        (
            "\"linger\":5,\n\"linger\":6",
            "Mistake c.json:3:1: \"linger\" is given again; the last one counts; remove one of them",
        ),
        (
            "\"lingre\":5",
            "Mistake c.json:2:1: \"lingre\" is ignored: kcptun-libev has no such key; did you mean \"linger\"?",
        ),
        (
            "\"mtu\":5",
            "Mistake c.json:2:1: \"mtu\" is ignored: kcptun-libev has no such key; write it in an object: \"kcp\": {\"mtu\": …}",
        ),
        (
            "\"kcp\":{\"linger\":5}",
            "Mistake c.json:2:8: \"linger\" is ignored: \"kcp\" has no such key; \"linger\" stands in no object",
        ),
        (
            "\"kcp\":{\"sndwdn\":5}",
            "Mistake c.json:2:8: \"sndwdn\" is ignored: \"kcp\" has no such key; did you mean \"sndwnd\"?",
        ),
        (
            "\"kcp.mtu\":500",
            "Mistake c.json:2:1: \"kcp.mtu\" is ignored: kcptun-libev has no such key",
        ),
        (
            "\"LISTEN\":\":5\"",
            "Mistake c.json:2:1: \"LISTEN\" is ignored: kcptun-libev has no such key; did you mean \"listen\"?",
        ),
        (
            "\"fulmar\":{\"mode\":\"classic\",\"memory\":1048576}",
            "Note c.json:2:37, \"fulmar.memory\": it has no effect: the mode is classic; remove it",
        ),
        (
            "\"fulmar\":{\"mode\":\"classic\",\"redundancy\":1}",
            "Note c.json:2:41, \"fulmar.redundancy\": it has no effect: the mode is classic; remove it",
        ),
        (
            "\"fulmar\":{\"accept_bad_checksums\":true}",
            "Note c.json:2:34, \"fulmar.accept_bad_checksums\": it has no effect without \"obfs\"; remove it",
        ),
    ] {
        assert!(says(&client(more), &[problem]).is_some(), "{more}");
    }
    says(
        &sealed(r#""connect":"h:1","kcp_bind":":2","kcp_connect":"h:3""#),
        &[
            "Mistake c.json:2:47, \"kcp_connect\": it is ignored: it is a client's key, and this is a server (it has \"connect\"); remove it",
        ],
    );
    says(
        &sealed(r#""connect":"h:1","kcp_bind":":2","fulmar":{"delay_eof":true}"#),
        &["Note c.json:2:55, \"fulmar.delay_eof\": it has no effect: this is no client; remove it"],
    );
    says(
        &sealed(r#""listen":":1","rendezvous_server":"r:3","keepalive":26"#),
        &[
            "Warning c.json:2:53, \"keepalive\": 26 s may be longer than a NAT remembers the way to \"rendezvous_server\"; write 1 to 25 s",
        ],
    );
    good(&sealed(
        r#""listen":":1","rendezvous_server":"r:3","keepalive":25"#,
    ));
}

#[test]
fn what_else_is_refused() {
    for (more, problem) in [
        (
            "\"netdev\":\"sixteen-letters-\"",
            "Error c.json:2:10, \"netdev\": \"sixteen-letters-\" has 16 bytes, and names of devices at most 15; write the name of a network device",
        ),
        (
            "\"user\":\"a:b:c\"",
            "Error c.json:2:8, \"user\": \"a:b:c\" has several colons; write \"user\", \"user:group\" or \":group\"",
        ),
        (
            "\"fulmar\":{\"mode\":\"clasic\"}",
            "Error c.json:2:18, \"fulmar.mode\": \"clasic\" is no mode; did you mean \"classic\"?",
        ),
        (
            "\"http_listen\":\"x\"",
            "Error c.json:2:15, \"http_listen\": \"x\" has no port; write \"host:port\", or \":port\" for any address",
        ),
        (
            "\"kcp_bind\":\"::1:3\"",
            "Error c.json:2:12, \"kcp_bind\": \"::1:3\" has several colons; write IPv6 addresses in brackets: \"[::1]:port\"",
        ),
    ] {
        assert_eq!(says(&client(more), &[problem]), None);
    }
    for (text, problem) in [
        (
            "[]",
            "Error c.json: the file is a list; write an object: {\"key\": value, …}",
        ),
        (
            "null",
            "Error c.json: the file is null; write an object: {\"key\": value, …}",
        ),
        (
            "{\"kcp_bind\":\":1\"}\nx",
            "Error c.json:2:1: text behind the closing bracket; remove it",
        ),
        (
            "{\"kcp_bind\":\":1\",}",
            "Error c.json:1:17: a comma with nothing behind it; remove the comma",
        ),
        (
            "{\"kcp\":{// c\n}}",
            "Error c.json:1:9: a comment; JSON has no comments; remove it",
        ),
    ] {
        assert_eq!(says(text, &[problem]), None);
    }
}

#[test]
fn the_last_of_several_counts() {
    let (config, problems) = load(&client(
        "\"kcp\":{\"mtu\":300,\"nodelay\":2},\"linger\":5,\n\"kcp\":{\"sndwnd\":17},\"linger\":null",
    ));
    let config = config.expect("starts");
    assert_eq!((config.kcp.mtu, config.kcp.sndwnd), (1400, 17));
    assert!(!config.kcp.explicit.profile);
    assert_eq!(config.linger.as_secs(), 30);
    assert_eq!(
        problems[0],
        "Mistake c.json:3:1: \"kcp\" is given again; what the one before says counts no more, as in kcptun-libev; write one object"
    );
    let (config, _) = load(&client("\"kcp_bind\":\":3\",\"udp_bind\":\":4\""));
    let bind = config.expect("starts").client_bind.expect("bind");
    assert_eq!(bind.port.number, 4);
}

#[test]
fn modes() {
    let mode = |more: &str| load(&client(more)).0.expect(more).ours.mode;
    assert_eq!(
        mode("\"kcp\":{\"mtu\":1000,\"sndwnd\":20,\"rcvwnd\":200}"),
        Mode::Auto
    );
    for key in ["nodelay", "nc", "flush"] {
        assert_eq!(mode(&format!("\"kcp\":{{\"{key}\":1}}")), Mode::Classic);
        assert_eq!(
            mode(&format!(
                "\"kcp\":{{\"{key}\":1}},\"fulmar\":{{\"mode\":\"auto\"}}"
            )),
            Mode::Auto
        );
    }
    assert_eq!(mode("\"kcp\":{\"interval\":100}"), Mode::Classic);
    assert_eq!(mode("\"kcp\":{\"resend\":0}"), Mode::Classic);
    assert_eq!(mode("\"fulmar\":{\"mode\":\"classic\"}"), Mode::Classic);
}

#[test]
fn sinks() {
    for sink in Sink::ALL {
        let config = good(&client(&format!("\"log\":\"{}\"", sink.name())));
        assert_eq!(config.log.sink, sink);
    }
}

#[test]
fn recognised_by_content() {
    for text in [
        r#"{"kcp_bind":":1"}"#,
        r#"{"udp_bind":":1"}"#,
        r#"{"listen":":1","kcp_connect":"h:1","key":"x"}"#,
        r#"{"listen":":1","rendezvous_server":"h:1"}"#,
        r#"{"connect":"h:1"}"#,
        r#"{"psk":"x"}"#,
        r#"{"listen":":1","kcp":{}}"#,
        r#"{"listen":":1","tcp":{}}"#,
        r#"{"listen":":1","method":"x"}"#,
    ] {
        assert_eq!(recognise(text.as_bytes()), Dialect::Libev, "{text}");
    }
    for text in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"listen":":1"}"#,
        r#"{"listen":":1","target":"h:1","tcp":true}"#,
        r#"{"localaddr":":1","remoteaddr":"h:1","crypt":"aes"}"#,
        r#"{"Key":"x","password":"y"}"#,
    ] {
        assert_eq!(recognise(text.as_bytes()), Dialect::Kcptun, "{text}");
    }
}

#[test]
fn any_file() {
    let environment = Environment::default();
    let any =
        |text: &str, side| any_from_bytes(Path::new("c.json"), text.as_bytes(), side, &environment);
    assert!(matches!(any(&client(""), None), Ok(AnyLoaded::Libev(_))));
    assert!(matches!(
        any(&client(""), Some(Side::Client)),
        Ok(AnyLoaded::Libev(_))
    ));
    for text in [client(""), sealed("\"kcp_bind\":\":1\"")] {
        let failure = any(&text, Some(Side::Server)).expect_err("role");
        assert!(
            failure
                .to_string()
                .contains("another role was asked for; leave out --role")
        );
    }
    let kcptun = any(r#"{"localaddr":":1","remoteaddr":"h:2"}"#, None);
    assert!(matches!(kcptun, Ok(AnyLoaded::Kcptun(_))));
    assert!(any("{", None).is_err());
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("c.json");
    assert!(any_from_file(&path, None, &environment).is_err());
    assert!(libev_from_file(&path).is_err());
    std::fs::write(&path, client("")).expect("write");
    assert!(matches!(
        any_from_file(&path, None, &environment),
        Ok(AnyLoaded::Libev(_))
    ));
    let config = libev_from_file(&path).expect("good").config;
    assert_eq!(config.role.name(), "client");
}

#[test]
fn what_is_in_force() {
    let lines = report::libev_lines(&good(&client(
        "\"kcp_bind\":\":3\",\"kcp\":{\"sndwnd\":512},\"user\":\"nobody\"",
    )));
    assert_eq!(
        lines,
        [
            "addresses",
            "  listen             :1                            <- c.json:1",
            "  kcp_bind           :3                            <- c.json:2",
            "  kcp_connect        h:2                           <- c.json:1",
            "encryption",
            "  method             aes256gcm                     <- c.json:1",
            "  psk                (32 bytes)                    <- c.json:1",
            "times",
            "  keepalive          25 s",
            "  timeout            600 s",
            "  linger             30 s",
            "  time_wait          120 s",
            "kcp",
            "  kcp.mtu            1400 bytes with IP header",
            "  kcp.sndwnd         512 segments                  <- c.json:2",
            "  kcp.rcvwnd         follows the path",
            "  fulmar.mode        auto: the sender follows the path",
            "  fulmar.redundancy  up to 25 % of bulk",
            "  fulmar.memory      64 MiB for each session",
            "  fulmar.delay_eof   off",
            "sockets",
            "  tcp.reuseport      off",
            "  tcp.keepalive      off",
            "  tcp.nodelay        on",
            "  tcp.sndbuf         default",
            "  tcp.rcvbuf         default",
            "  udp.reuseport      off",
            "  udp.sndbuf         default",
            "  udp.rcvbuf         default",
            "process",
            "  loglevel           4",
            "  log                stdout",
            "  user               nobody                        <- c.json:2",
        ]
    );
    let relay = report::libev_lines(&good(&sealed("\"kcp_bind\":\":1\"")));
    assert!(!relay.iter().any(|line| line.contains("kcp.")), "{relay:?}");
    let (plain, _) = load(r#"{"connect":"h:1","rendezvous_server":"r:2","kcp":{"flush":2}}"#);
    let plain = report::libev_lines(&plain.expect("starts")).join("\n");
    for part in [
        "NOTHING IS ENCRYPTED",
        "rendezvous_server  r:2",
        "service_id         none",
        "classic: nodelay 1, interval 100 ms, resend 0, nc 1, flush 2",
    ] {
        assert!(plain.contains(part), "{plain}");
    }
}

#[test]
fn too_many_problems_end_the_reading() {
    let text = format!("{{{}}}", vec!["\"x\":1"; 1000].join(","));
    let (_, problems) = load(&text);
    assert!(problems.len() < 110, "{}", problems.len());
    let text = format!("{{\"kcp\":{{{}}}}}", vec!["\"x\":1"; 1000].join(","));
    assert!(load(&text).1.len() < 110);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_file_is_judged(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        text in "\\{(\"(listen|connect|kcp_bind|kcp_connect|rendezvous_server|method|psk|obfs|user|log|kcp|tcp|fulmar|x)\":(-?[0-9]{1,6}|null|true|\"[a-z:0-9]{0,5}\"|\\{\"(mtu|nodelay|mode|rcvwnd)\":[0-9]{1,5}\\}),?){0,6}\\}",
    ) {
        for bytes in [&bytes[..], text.as_bytes()] {
            let _ = recognise(bytes);
            let problems = match libev_from_bytes(Path::new("c.json"), bytes) {
                Ok(loaded) => {
                    prop_assert!(!report::libev_lines(&loaded.config).is_empty());
                    loaded.problems
                }
                Err(failure) => {
                    prop_assert!(!failure.to_string().is_empty());
                    failure.problems
                }
            };
            prop_assert!(problems.iter().all(|p| !p.to_string().contains('\n')));
        }
    }
}
