//! Numbers and texts that make no sense, in every option that kcptun has: what starts there starts here, with kcptun's meaning
//! and a warning, or docs/compatibility.md says why not. What kcptun does is written down from docs/spec/kcptun.md, section 3.5,
//! independently of our table.

use std::ffi::OsString;
use std::path::Path;

use fulmar_config::options::{self, Kind};
use fulmar_config::{
    Client, Config, Environment, Failure, Invocation, Loaded, Program, Role, Severity, Side,
    from_args, from_bytes,
};

const DOCS: &str = include_str!("../../../docs/compatibility.md");
const SIDES: [Side; 2] = [Side::Client, Side::Server];
const TWO_32: i64 = 1 << 32;
const VALUES: [i64; 30] = [
    i64::MIN,
    -TWO_32,
    -2,
    -1,
    0,
    1,
    2,
    3,
    29,
    31,
    49,
    50,
    63,
    64,
    255,
    256,
    257,
    1400,
    1501,
    8192,
    65_535,
    65_536,
    65_537,
    4_194_305,
    i32::MAX as i64,
    i32::MAX as i64 + 1,
    TWO_32 - 1,
    TWO_32,
    TWO_32 + 5,
    i64::MAX,
];

/// What kcptun does with a number, all else at its default and the mode manual.
#[derive(PartialEq, Debug)]
enum Does {
    /// It runs, whatever it makes of the number.
    Runs,
    /// It refuses at the start, ends or fails with the first session, or crashes.
    Fails,
}

fn kcptun(flag: &str, n: i64) -> Does {
    let runs = match flag {
        // The number of sessions is taken modulo 65536, and none crashes.
        "conn" => n > 0 && n % 65_536 != 0,
        "smuxver" => n == 1 || n == 2,
        "keepalive" => (1..=30).contains(&n),
        "framesize" => (1..=65_535).contains(&n),
        // The window of a stream must fit in, and the counter has 31 bits.
        "smuxbuf" => (2_097_152..=i64::from(i32::MAX)).contains(&n),
        "streambuf" => (1..=4_194_304).contains(&n),
        "autoexpire" | "scavengettl" | "closewait" | "mtu" | "ratelimit" | "sndwnd" | "rcvwnd"
        | "datashard" | "parityshard" | "dscp" | "nodelay" | "interval" | "resend" | "nc"
        | "sockbuf" | "snmpperiod" | "QPPCount" => true,
        other => panic!("{other}"),
    };
    if runs { Does::Runs } else { Does::Fails }
}

/// What runs there and is refused here: option, value, and the words of the document that say so.
type Listed = (&'static str, fn(i64) -> bool, &'static str);
const LISTED: &[Listed] = &[
    (
        "conn",
        |n| n > 65_535,
        "| `conn` above 65535 | taken modulo 65536; a multiple of it crashes | refused |",
    ),
    (
        "datashard",
        |n| n > 253,
        "| `datashard` + `parityshard` above 256 | accepted, hardly any parity is sent | refused |",
    ),
    (
        "parityshard",
        |n| n > 246,
        "| `datashard` + `parityshard` above 256 | accepted, hardly any parity is sent | refused |",
    ),
];

fn by_flag(side: Side, args: &[&str]) -> Result<Loaded, Failure> {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    match from_args(side, &args, &Environment::default())? {
        Invocation::Run(loaded) => Ok(*loaded),
        other => panic!("{other:?}"),
    }
}

fn by_key(side: Side, text: &str) -> Result<Loaded, Failure> {
    let environment = Environment::default();
    from_bytes(
        Path::new("c.json"),
        text.as_bytes(),
        Some(side),
        &environment,
    )
}

#[test]
fn what_starts_with_kcptun_starts_here_or_is_listed() {
    let mut tried = 0;
    for side in SIDES {
        let numbers = options::of(side)
            .filter(|opt| opt.program == Program::Kcptun && matches!(opt.kind, Kind::Int { .. }));
        for opt in numbers {
            let key = opt.key.expect("a key");
            for n in VALUES {
                tried += 1;
                let number = format!("--{}={n}", opt.flag);
                let flag = by_flag(side, &["--key=Xq7Lw2Rt9Kp4Vz1N", "--mode=manual", &number]);
                let text = format!("{{\"key\":\"k\",\"mode\":\"manual\",\"{key}\":{n}}}");
                let file = by_key(side, &text);
                assert_eq!(flag.is_ok(), file.is_ok(), "{number}");
                let listed = LISTED
                    .iter()
                    .find(|(flag, refused, _)| *flag == opt.flag && refused(n));
                match (kcptun(opt.flag, n), &flag, listed) {
                    (Does::Runs, Ok(_), None) | (Does::Fails, Err(_), None) => {}
                    (_, Err(_), Some((.., words))) => {
                        assert!(DOCS.contains(words), "{number}: {words}");
                    }
                    (does, ours, _) => panic!("{number}: kcptun {does:?}, and here {ours:?}"),
                }
                // What is out of the range that the help gives is never taken in silence.
                if let (Ok(loaded), Kind::Int { min, max, .. }) = (&flag, opt.kind)
                    && !(min..=max).contains(&n)
                    && opt.flag != "QPPCount"
                {
                    let said = loaded
                        .problems
                        .iter()
                        .filter(|p| p.severity == Severity::Mistake)
                        .count();
                    assert_eq!(said, 1, "{number}: {:?}", loaded.problems);
                }
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

fn client(config: &Config) -> &Client {
    match &config.role {
        Role::Client(client) => client,
        Role::Server(_) => panic!("a client"),
    }
}

#[test]
fn odd_numbers_mean_what_kcptun_makes_of_them() {
    type Get = fn(&Config) -> i64;
    let none = -7;
    let autoexpire: Get = |c| {
        client(c)
            .autoexpire
            .map_or(-7, |t| i64::try_from(t.as_secs()).expect("small"))
    };
    let scavenge: Get = |c| {
        client(c)
            .scavenge_ttl
            .map_or(-7, |t| i64::try_from(t.as_secs()).expect("small"))
    };
    let close_wait: Get = |c| i64::try_from(c.tunnel.close_wait.as_secs()).expect("small");
    let dscp: Get = |c| c.tunnel.dscp.into();
    let sockbuf: Get = |c| i64::try_from(c.tunnel.sock_buf).expect("small");
    let rate: Get = |c| {
        c.tunnel
            .rate_limit
            .map_or(-7, |rate| i64::try_from(rate).expect("small"))
    };
    let mtu: Get = |c| i64::try_from(c.tunnel.mtu).expect("small");
    let sndwnd: Get = |c| c.tunnel.snd_wnd.into();
    let rcvwnd: Get = |c| c.tunnel.rcv_wnd.into();
    let interval: Get = |c| i64::try_from(c.tunnel.interval.as_millis()).expect("small");
    let resend: Get = |c| c.tunnel.resend.into();
    let nodelay: Get = |c| c.tunnel.nodelay.into();
    let window: Get = |c| c.tunnel.congestion_control.into();
    let parity: Get = |c| c.tunnel.fec.is_some().into();
    let period: Get = |c| c.stats.snmp_log.is_some().into();
    for (args, get, value, said) in [
        (
            &["-autoexpire=-1"][..],
            autoexpire,
            none,
            "-1 means never, as in kcptun; write 0 for that",
        ),
        (
            &["-scavengettl=-1", "-autoexpire=60"],
            scavenge,
            none,
            "-1 means no limit, as in kcptun's manual; write 316224000 for ten years",
        ),
        (
            &["-closewait=-1"],
            close_wait,
            0,
            "-1 means 0, as in kcptun; write 0 for that",
        ),
        (
            &["-dscp=64"],
            dscp,
            0,
            "64 has more than the six bits of the field: 0 is sent, as by kcptun; write 0",
        ),
        (
            &["-dscp=256"],
            dscp,
            0,
            "256 has more than the six bits of the field: 0 is sent, as by kcptun; write 0",
        ),
        (
            &["-dscp=110"],
            dscp,
            46,
            "110 has more than the six bits of the field: 46 is sent, as by kcptun; write 46",
        ),
        (
            &["-sockbuf=0"],
            sockbuf,
            1,
            "0 means the smallest buffer of the system, as in kcptun; write 4194304, or what the system allows",
        ),
        (
            &["-sockbuf=-1"],
            sockbuf,
            4_194_304,
            "-1 counts as 4194304, the default; write 4194304, or what the system allows",
        ),
        (
            &["-ratelimit=4294967296"],
            rate,
            none,
            "4294967296 means no limit, as in kcptun: only 32 bits of it count; write 0 to 4294967295 bytes per second",
        ),
        (
            &["-ratelimit=4294967297"],
            rate,
            1,
            "4294967297 counts as 1 byte, as in kcptun: only 32 bits of it count; write 0 to 4294967295 bytes per second",
        ),
        (
            &["-ratelimit=-5"],
            rate,
            none,
            "-5 means no limit, as in kcptun; write 0 for that",
        ),
        (
            &["-snmpperiod=-1"],
            period,
            0,
            "-1 has no effect without snmplog; remove it",
        ),
        (
            &["-mtu=1501"],
            mtu,
            1500,
            "1501 counts as 1500, as in kcptun; write 78 to 1500 bytes",
        ),
        (
            &["-mtu=70"],
            mtu,
            1400,
            "70 leaves no room beside the headers of aes and parity and counts as 1400, as in kcptun; write 78 to 1500 bytes",
        ),
        (
            &["-mtu=-1", "-crypt=null", "-ds=0"],
            mtu,
            1400,
            "-1 leaves no room beside the headers of null and counts as 1400, as in kcptun; write 50 to 1500 bytes",
        ),
        (
            &["-sndwnd=0"],
            sndwnd,
            32,
            "0 counts as 32, as in kcptun; write 1 to 65535 packets",
        ),
        (
            &["-rcvwnd=65536"],
            rcvwnd,
            65_535,
            "65536 counts as 65535: the packet format cannot say more; write 1 to 65535 packets",
        ),
        (
            &["-mode=manual", "-interval=-1"],
            interval,
            100,
            "-1 counts as 100, as in kcptun; write 0 to 2147483647 milliseconds",
        ),
        (
            &["-mode=manual", "-resend=-1"],
            resend,
            0,
            "-1 counts as 0, as in kcptun; write 0 to 2147483647 acknowledgements",
        ),
        (
            &["-mode=manual", "-nodelay=-1"],
            nodelay,
            0,
            "-1 counts as 0, as in kcptun; write 0 to 2147483647",
        ),
        (
            &["-mode=manual", "-nc=-1"],
            window,
            1,
            "-1 counts as 0, as in kcptun; write 0 to 2147483647",
        ),
        (
            &["-ds=-1"],
            parity,
            0,
            "-1 means no parity, as in kcptun; write 0 for that",
        ),
        (
            &["-ps=-1", "-ds=300"],
            parity,
            0,
            "-1 means no parity, as in kcptun; write 0 for that",
        ),
    ] {
        let all: Vec<&str> = ["-key=Xq7Lw2Rt9Kp4Vz1N", "-r=h:1"]
            .iter()
            .chain(args)
            .copied()
            .collect();
        let loaded = by_flag(Side::Client, &all).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        assert_eq!(get(&loaded.config), value, "{args:?}");
        let mistakes: Vec<_> = loaded
            .problems
            .iter()
            .filter(|p| p.severity == Severity::Mistake)
            .map(|p| {
                p.to_string()
                    .split_once(": ")
                    .expect("a place")
                    .1
                    .to_owned()
            })
            .collect();
        assert_eq!(mistakes, [said], "{args:?}");
    }
}

#[test]
fn odd_addresses_are_taken_or_listed() {
    let accepted: [(Side, &str); 9] = [
        (Side::Server, "-t=h:http"),
        (Side::Server, "-t=h:+80"),
        (Side::Server, "-t=@abstract"),
        (Side::Server, "-t=localhost"),
        (Side::Server, "-l=:3000-"),
        (Side::Server, "-l=:3000,4000"),
        (Side::Client, "-l=:http"),
        (Side::Client, "-l=::1:80"),
        (Side::Client, "-r=:1"),
    ];
    for (side, arg) in accepted {
        by_flag(side, &["-key=Xq7Lw2Rt9Kp4Vz1N", arg]).unwrap_or_else(|e| panic!("{arg}: {e}"));
    }
    for (side, arg, words) in [
        (Side::Server, "-t=", "| `target` that can never be reached"),
        (
            Side::Server,
            "-t=h:0",
            "| `target` that can never be reached",
        ),
        (
            Side::Server,
            "-t=h:99999",
            "| `target` that can never be reached",
        ),
        (Side::Server, "-t=h h:80", "| hosts with blanks"),
        (Side::Client, "-l=", "| `localaddr` that is empty"),
        (Side::Client, "-r=h h:80", "| hosts with blanks"),
        (
            Side::Client,
            "-r=h:10-5",
            "| port range upside down or malformed | server 0, client never ends | 2 |",
        ),
        (Side::Client, "--pprof", "| `pprof` |"),
    ] {
        assert!(
            by_flag(side, &["-key=Xq7Lw2Rt9Kp4Vz1N", arg]).is_err(),
            "{arg}"
        );
        assert!(DOCS.contains(words), "{words}");
    }
}
