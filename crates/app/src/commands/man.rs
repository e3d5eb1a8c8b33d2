//! `fulmar man`: manual pages, made of the command line's own help and of what it does not say: environment, files, signals, exit
//! status, examples.

use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use fulmar_config::hint::nearest;
use fulmar_config::text;

use crate::cli;
use crate::exit::{Exit, print};
use crate::persona::FULMAR;

/// A part of a page: its heading, and a term and its explanation each.
type Section = (&'static str, &'static [(&'static str, &'static str)]);

const ENVIRONMENT: Section = (
    "ENVIRONMENT",
    &[
        (
            "KCPTUN_KEY",
            "The pre-shared secret where neither the file nor an option gives one. Not read with kcptun-libev's files.",
        ),
        LEVELS,
        LINES,
        DUMPABLE,
        (
            "SS_REMOTE_HOST, SS_REMOTE_PORT, SS_LOCAL_HOST, SS_LOCAL_PORT, SS_PLUGIN_OPTIONS",
            "Set by a shadowsocks host that starts its plugin. With the first four set, the addresses are theirs, and the options in \
             the last one override everything else.",
        ),
        (
            "NOTIFY_SOCKET, WATCHDOG_USEC",
            "Set by systemd: it is told of start, reload and end, and that the process is alive.",
        ),
        ("TZ", "Time zone of log lines and of the name of --snmplog."),
    ],
);
const LEVELS: (&str, &str) = (
    "FULMAR_LOG",
    "Level of log lines: off, error, warn, info (default), debug or trace; for parts of the program after commas, as in \
     info,fulmar_runtime=debug. Not read with kcptun-libev's files, which have loglevel.",
);
const LINES: (&str, &str) = (
    "FULMAR_LOG_LINES",
    "How many of the log lines that peers can cause are shown: limited (default), at most 20 per second, or all. Also read with \
     kcptun-libev's files.",
);
const DUMPABLE: (&str, &str) = (
    "FULMAR_DUMPABLE",
    "no (default): on Linux no core is written, and other programs of the same user may neither trace the process nor read its memory or \
     its list of open files, because it holds keys. yes: they may, as a profiler or a debugger has to.",
);
const FILES: Section = (
    "FILES",
    &[
        (
            "FILE of -c",
            "A configuration of kcptun (JSON, or TOML with the same keys) or of kcptun-libev (JSON). It is recognised by its content.",
        ),
        (
            "FILE of --key-file",
            "The pre-shared secret, every byte of it. Readable by the service's user only.",
        ),
        (
            "/etc/fulmar/NAME.json, /etc/fulmar/NAME.toml",
            "What the unit fulmar@NAME.service runs.",
        ),
        (
            "/dev/log",
            "The system's log, for kcptun-libev's files in the background or with \"log\": \"syslog\".",
        ),
    ],
);
const SIGNALS: Section = (
    "SIGNALS",
    &[
        ("SIGINT, SIGTERM", "End the program, with exit status 0."),
        (
            "SIGHUP",
            "Reads the configuration again and says what takes effect when; opens the file of --log again, for rotation. Never ends the program.",
        ),
        ("SIGUSR1", "Writes all counters into the log, in two lines."),
        ("SIGPIPE", "Ignored."),
    ],
);
const STATUS: Section = (
    "EXIT STATUS",
    &[
        ("0", "All is well, or the program was told to stop."),
        (
            "1",
            "Something failed at run time: an address cannot be had, a right is missing. Called kcptun-libev, every failure.",
        ),
        (
            "2",
            "A mistake in the command line or the configuration. The message says where, and what to write instead.",
        ),
    ],
);
const CLIENT_EXAMPLES: Section = (
    "EXAMPLES",
    &[
        (
            "fulmar client -r vps.example.net:29900 -l 127.0.0.1:12948 --key-file /etc/fulmar/tunnel.key",
            "Carry what connects to port 12948 of this machine to the server's target.",
        ),
        (
            "fulmar client -r vps.example.net:29900-29910 -l :12948 --key KEY --conn 4 --mode auto",
            "Four sessions on ports drawn from eleven, and a sender that measures the path.",
        ),
        (
            "fulmar client -r vps.example.net:29900 -l :12948 --key KEY --smuxver 1",
            "A server older than November 2025.",
        ),
    ],
);
const SERVER_EXAMPLES: Section = (
    "EXAMPLES",
    &[
        (
            "fulmar server -l :29900 -t 127.0.0.1:8388 --key-file /etc/fulmar/tunnel.key",
            "Accept tunnels on UDP port 29900 and carry their connections to a service on this machine.",
        ),
        (
            "fulmar server -l :29900 -t 127.0.0.1:22 --key KEY --crypt auto --mode auto",
            "Find out the cipher of each client, and measure the path to it.",
        ),
        (
            "fulmar server -l :29900 -t 127.0.0.1:22 --key KEY --http-listen 127.0.0.1:8081",
            "With a status page.",
        ),
    ],
);

/// What a page has beside the help of its command; `None` is the program's own page.
fn sections(command: Option<&str>) -> Vec<Section> {
    let examples: &'static [(&str, &str)] = match command {
        None => &[
            (
                "fulmar demo",
                "Try it: target, server, a lossy link and client in one process.",
            ),
            (
                "fulmar genpsk -o /etc/fulmar/tunnel.key",
                "Make a key, for both ends.",
            ),
            (
                "fulmar server -l :29900 -t 127.0.0.1:22 --key-file /etc/fulmar/tunnel.key",
                "One end of a tunnel.",
            ),
            (
                "fulmar client -r vps.example.net:29900 -l 127.0.0.1:2222 --key-file /etc/fulmar/tunnel.key",
                "The other one.",
            ),
        ],
        Some("client") => {
            return vec![ENVIRONMENT, FILES, SIGNALS, STATUS, CLIENT_EXAMPLES];
        }
        Some("server") => {
            return vec![ENVIRONMENT, FILES, SIGNALS, STATUS, SERVER_EXAMPLES];
        }
        Some("run") => &[
            (
                "fulmar run -c /etc/fulmar/office.json",
                "What a service does.",
            ),
            (
                "fulmar run -c /etc/kcptun.json --role server",
                "A file that could be of either end.",
            ),
        ],
        Some("check") => &[(
            "fulmar check -c /etc/kcptun-client.json",
            "What the file comes to, and what is wrong in it.",
        )],
        Some("genpsk") => &[
            ("fulmar genpsk", "A key on standard output."),
            (
                "fulmar genpsk xchacha20poly1305_ietf",
                "A psk for kcptun-libev's files.",
            ),
            (
                "fulmar genpsk -o /etc/fulmar/tunnel.key",
                "A key in a new file that its owner only can read.",
            ),
        ],
        Some("demo") => &[
            ("fulmar demo", "With the defaults."),
            ("fulmar demo --loss 10 --rtt 200 --rate 50", "A worse link."),
        ],
        Some("completions") => &[(
            "fulmar completions bash",
            "The script for bash, for a file in /usr/share/bash-completion/completions.",
        )],
        Some("man") => &[
            ("fulmar man client", "One page, for man -l -."),
            (
                "fulmar man --dir /usr/local/share/man/man1",
                "All pages, where man looks for them.",
            ),
        ],
        Some(_) => &[],
    };
    let runs = matches!(command, None | Some("run"));
    let mut all = Vec::new();
    if runs || command == Some("check") {
        all.extend([ENVIRONMENT, FILES]);
    } else if command == Some("demo") {
        all.push(("ENVIRONMENT", &[LEVELS]));
    }
    if runs {
        all.push(SIGNALS);
    }
    all.push(STATUS);
    if !examples.is_empty() {
        all.push(("EXAMPLES", examples));
    }
    all
}

/// The program with all that its pages need.
fn program() -> Command {
    let mut program = cli::program().disable_help_subcommand(true);
    program.build();
    program
}

/// One manual page on standard output, or all into `dir`.
pub(crate) fn man(command: Option<&str>, dir: Option<&Path>) -> Result<(), Exit> {
    let program = program();
    if let Some(dir) = dir {
        for name in names(&program) {
            let page = of(&program, name)?;
            let path = dir.join(Man::new(page.clone()).get_filename());
            std::fs::write(&path, render(&page, name)?).map_err(|e| {
                Exit::failed(format!(
                    "cannot write the manual page {}: {e}",
                    text::path(path)
                ))
            })?;
        }
        return Ok(());
    }
    let page = of(&program, command)?;
    print(&render(&page, command)?)
}

/// The pages: the program's, then one of each command.
fn names(program: &Command) -> Vec<Option<&str>> {
    let commands = program
        .get_subcommands()
        .map(|command| Some(command.get_name()));
    std::iter::once(None).chain(commands).collect()
}

/// The command that a page is of.
fn of(program: &Command, name: Option<&str>) -> Result<Command, Exit> {
    let Some(name) = name else {
        return Ok(program.clone());
    };
    if let Some(command) = program.find_subcommand(name) {
        return Ok(command.clone());
    }
    let names: Vec<&str> = names(program).into_iter().flatten().collect();
    let hint = match nearest(name, names.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("write one of {}", names.join(", ")),
    };
    Err(Exit::usage(format!(
        "man: there is no command {}; {hint}",
        text::quoted(name)
    )))
}

fn render(page: &Command, name: Option<&str>) -> Result<String, Exit> {
    let mut text = Vec::new();
    let written = write(page, name, &mut text);
    written.map_err(|e| Exit::failed(format!("cannot make the manual page: {e}")))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn write(page: &Command, name: Option<&str>, text: &mut Vec<u8>) -> std::io::Result<()> {
    let man = Man::new(page.clone()).manual("Fulmar");
    man.render_title(text)?;
    man.render_name_section(text)?;
    let mut synopsis = Roff::default();
    synopsis.control("SH", ["SYNOPSIS"]);
    let usage = page.clone().render_usage().to_string();
    synopsis.text([roman(usage.trim_start_matches("Usage:").trim())]);
    synopsis.to_writer(text)?;
    man.render_description_section(text)?;
    man.render_options_section(text)?;
    if page.get_subcommands().next().is_some() {
        man.render_subcommands_section(text)?;
    }
    let mut roff = Roff::default();
    if let Some(notes) = page.get_after_help() {
        roff.control("SH", ["NOTES"]);
        roff.text([roman(notes.to_string())]);
    }
    for (heading, entries) in sections(name) {
        roff.control("SH", [heading]);
        for (term, explanation) in entries {
            roff.control("TP", []);
            roff.text([bold(*term)]);
            roff.text([roman(*explanation)]);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    let own = name.unwrap_or_default();
    let program = program();
    let others = names(&program)
        .into_iter()
        .filter(|other| other.unwrap_or_default() != own);
    let others: Vec<String> = others
        .map(|other| match other {
            None => format!("{FULMAR}(1)"),
            Some(command) => format!("{FULMAR}-{command}(1)"),
        })
        .collect();
    roff.text([roman(others.join(", "))]);
    roff.to_writer(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_config::{Environment, Invocation, Side, from_args};
    use std::ffi::OsString;

    #[test]
    fn every_page_says_how_it_ends_and_where_a_tunnel_gets_what_from() {
        let program = program();
        for name in names(&program) {
            let page = render(&of(&program, name).unwrap(), name).unwrap();
            let sections: Vec<&str> = page
                .lines()
                .filter_map(|line| line.strip_prefix(".SH "))
                .map(|heading| heading.trim_matches('"'))
                .collect();
            let wanted: &[&str] = match name {
                None | Some("client" | "server" | "run") => {
                    &["ENVIRONMENT", "FILES", "SIGNALS", "EXIT STATUS", "EXAMPLES"]
                }
                Some("check") => &["ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES"],
                Some("version") => &["EXIT STATUS"],
                Some(_) => &["EXIT STATUS", "EXAMPLES"],
            };
            for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"]
                .iter()
                .chain(wanted)
            {
                let times = sections
                    .iter()
                    .filter(|section| *section == heading)
                    .count();
                assert_eq!(times, 1, "{name:?}: {heading} of {sections:?}");
            }
        }
    }

    /// An example that is shown is accepted.
    #[test]
    fn examples_are_command_lines() {
        let program = program();
        let mut tried = 0;
        for name in names(&program) {
            let examples = sections(name)
                .into_iter()
                .filter(|(heading, _)| *heading == "EXAMPLES");
            for (line, _) in examples.flat_map(|(_, entries)| entries) {
                let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
                tried += 1;
                let side = match words[1].to_str() {
                    Some("client") => Side::Client,
                    Some("server") => Side::Server,
                    _ => {
                        let parsed = cli::program().try_get_matches_from(&words);
                        assert!(parsed.is_ok(), "{line}: {parsed:?}");
                        continue;
                    }
                };
                // There is no such file here.
                let words: Vec<OsString> = line
                    .replace("--key-file /etc/fulmar/tunnel.key", "--key KEY")
                    .split(' ')
                    .skip(2)
                    .map(Into::into)
                    .collect();
                let loaded = from_args(side, &words, &Environment::default());
                assert!(matches!(loaded, Ok(Invocation::Run(_))), "{line}");
            }
        }
        assert!(tried > 15, "{tried} examples");
    }
}
