//! What perf saw: stacks, with names that can be read, and sums over them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The kernel's function that dispatches system calls.
const SYSCALL: &str = "do_syscall_64";

/// Where a function comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    /// A crate of ours, by its name without `fulmar_`.
    Ours(&'static str),
    /// tokio, std and other crates.
    Rust,
    /// The C library.
    Libc,
    Kernel,
}

/// Crates that are told apart, in the order of the way of a byte.
pub(crate) const CRATES: [&str; 9] = [
    "runtime", "session", "mux", "codec", "arq", "fec", "gf256", "cipher", "netio",
];

impl Layer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours(name) => name,
            Self::Rust => "tokio, std, other crates",
            Self::Libc => "libc",
            Self::Kernel => "kernel",
        }
    }
}

/// A function in a stack.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Frame {
    pub(crate) name: String,
    pub(crate) layer: Layer,
}

impl Frame {
    /// From a line of `perf script`: address, symbol, object in brackets. `None` where the stack could not be followed.
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.trim().split_once(' ')?;
        let (symbol, object) = rest.rsplit_once(" (")?;
        let object = object.trim_end_matches(')').rsplit('/').next()?;
        let symbol = symbol.split("+0x").next().unwrap_or(symbol).trim();
        if object == "[unknown]" {
            return None;
        }
        if object.starts_with('[') {
            return Some(Self {
                name: symbol.to_owned(),
                layer: Layer::Kernel,
            });
        }
        let name = readable(symbol);
        let first = name.split("::").next().unwrap_or_default();
        let ours = first
            .strip_prefix("fulmar")
            .map(|s| s.trim_start_matches('_'));
        let layer = match ours {
            Some(krate) => CRATES
                .iter()
                .find(|c| **c == krate)
                // The program itself is a few lines on top of its runtime.
                .map_or(Layer::Ours(CRATES[0]), |c| Layer::Ours(c)),
            None if object.starts_with("lib") || object.starts_with("ld-") => Layer::Libc,
            None => Layer::Rust,
        };
        Some(Self { name, layer })
    }

    /// Crate, type and function: what fits into a picture.
    pub(crate) fn short(&self) -> String {
        let name = self.name.strip_prefix("fulmar_").unwrap_or(&self.name);
        let parts: Vec<&str> = name.split("::").collect();
        let closures = parts
            .iter()
            .rev()
            .take_while(|p| p.starts_with('{'))
            .count();
        let keep = 2 + closures;
        if parts.len() <= keep + 1 {
            return name.to_owned();
        }
        format!("{}::{}", parts[0], parts[parts.len() - keep..].join("::"))
    }

    /// What is under everything and explains nothing.
    fn is_scaffold(&self) -> bool {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|p| self.name.starts_with(p));
        match self.layer {
            Layer::Rust => {
                begins(&[
                    "std::",
                    "core::",
                    "alloc::",
                    "tokio::runtime",
                    "tokio::task",
                ]) || self.name == "main"
                    || self.name == "_start"
            }
            Layer::Libc => begins(&["start_thread", "clone", "__clone", "__libc_start"]),
            Layer::Kernel => begins(&[SYSCALL, "entry_SYSCALL", "x64_sys_call", "asm_"]),
            Layer::Ours(_) => false,
        }
    }
}

/// The system call that a stack is in, by the kernel's name for it, or else by that of the function that made it.
fn call(stack: &[Frame]) -> Option<String> {
    let at = stack.iter().position(|frame| frame.name == SYSCALL)?;
    let kernel = at.checked_sub(1).map(|inner| stack[inner].name.as_str());
    let user = stack.iter().find(|frame| frame.layer != Layer::Kernel);
    let name = match kernel {
        Some(name) if name.contains("sys_") || name.starts_with("do_") => name,
        _ => &user?.name,
    };
    let name = name.rsplit("sys_").next().unwrap_or(name);
    let name = ["__GI_", "__libc_", "do_"]
        .iter()
        .fold(name, |name, prefix| {
            name.strip_prefix(prefix).unwrap_or(name)
        });
    Some(name.trim_start_matches('_').to_owned())
}

/// A Rust symbol without generic arguments: `<A<T> as B>::f` is `A::f`, `m::<impl A<T>>::f` is `A::f`.
fn readable(symbol: &str) -> String {
    // Arrows are no brackets.
    let symbol = symbol
        .replace("->", "")
        .replace("{{", "{")
        .replace("}}", "}");
    let symbol = symbol.trim_end_matches("{vtable.shim}");
    let symbol = symbol
        .split("::h")
        .next()
        .filter(|_| has_hash(symbol))
        .unwrap_or(symbol);
    if let Some(at) = symbol.find("<impl ") {
        let inner = &symbol[at + 6..];
        let (inner, rest) = inner.split_at(closing(inner));
        let of = inner.rsplit(" for ").next().unwrap_or(inner);
        return readable(&format!("{of}{}", rest.trim_start_matches('>')));
    }
    if let Some(inner) = symbol.strip_prefix('<') {
        let (inner, rest) = inner.split_at(closing(inner));
        let mut depth = 0;
        let cut = inner.char_indices().find(|&(at, c)| {
            depth += i32::from(c == '<') - i32::from(c == '>');
            depth == 0 && inner[at..].starts_with(" as ")
        });
        let of = cut.map_or(inner, |(at, _)| &inner[..at]);
        return readable(&format!(
            "{}{}",
            of.trim_start_matches(['&', '*']).trim_start_matches("mut "),
            &rest[1.min(rest.len())..]
        ));
    }
    let mut depth = 0;
    let plain: String = symbol
        .chars()
        .filter(|c| {
            depth += i32::from(*c == '<');
            let keep = depth == 0;
            depth -= i32::from(*c == '>');
            keep
        })
        .collect();
    plain.replace("::::", "::")
}

/// Whether a symbol ends with the hash of Rust's older mangling.
fn has_hash(symbol: &str) -> bool {
    symbol
        .rsplit_once("::h")
        .is_some_and(|(_, hash)| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Where the bracket that was opened before `text` closes.
fn closing(text: &str) -> usize {
    let mut depth = 1;
    let end = text.char_indices().find(|&(_, c)| {
        depth += i32::from(c == '<') - i32::from(c == '>');
        depth == 0
    });
    end.map_or(text.len(), |(at, _)| at)
}

/// Functions and what they called, with samples.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) children: BTreeMap<Frame, Self>,
    /// Samples in here and in what was called.
    pub(crate) total: u64,
}

/// All samples of a process.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    pub(crate) root: Node,
    own: BTreeMap<Frame, u64>,
    calls: BTreeMap<String, u64>,
}

impl Profile {
    /// From the output of `perf script -F comm,ip,sym,dso`: samples are paragraphs, the innermost function first.
    pub(crate) fn parse(text: &str) -> Self {
        let mut profile = Self::default();
        for sample in text.split("\n\n") {
            let frames = sample
                .lines()
                .skip_while(|line| !line.starts_with(['\t', ' ']));
            let stack: Vec<Frame> = frames.filter_map(Frame::parse).collect();
            if !stack.is_empty() {
                profile.add(stack);
            }
        }
        profile
    }

    /// Whether anything of ours was seen: it is not when perf cannot follow stacks.
    pub(crate) fn has_ours(&self) -> bool {
        let mut nodes = vec![&self.root];
        while let Some(node) = nodes.pop() {
            if node
                .children
                .keys()
                .any(|frame| matches!(frame.layer, Layer::Ours(_)))
            {
                return true;
            }
            nodes.extend(node.children.values());
        }
        false
    }

    /// All samples.
    pub(crate) fn total(&self) -> u64 {
        self.root.total
    }

    /// Adds a sample, the innermost function first.
    fn add(&mut self, stack: Vec<Frame>) {
        *self.own.entry(stack[0].clone()).or_default() += 1;
        if let Some(call) = call(&stack) {
            *self.calls.entry(call).or_default() += 1;
        }
        let ours = stack
            .iter()
            .rposition(|frame| matches!(frame.layer, Layer::Ours(_)));
        let mut node = &mut self.root;
        node.total += 1;
        for (at, frame) in stack.into_iter().enumerate().rev() {
            // What is around our outermost function is the same everywhere; between ours, only what calls back.
            let around = ours.is_some_and(|ours| at > ours) && frame.layer != Layer::Kernel;
            if at > 0 && (around || frame.is_scaffold()) {
                continue;
            }
            node = node.children.entry(frame).or_default();
            node.total += 1;
        }
    }

    /// Samples in functions of each layer, the largest first.
    pub(crate) fn layers(&self) -> Vec<(Layer, u64)> {
        let mut layers = BTreeMap::new();
        for (frame, samples) in &self.own {
            *layers.entry(frame.layer).or_default() += samples;
        }
        largest(layers)
    }

    /// The largest costs, for a terminal.
    pub(crate) fn summary(&self) -> String {
        let share = |samples: u64| 100.0 * samples as f64 / self.total() as f64;
        let mut text = String::new();
        let _ = writeln!(text, "  functions themselves, without what they call:");
        for (frame, samples) in largest(self.own.clone()).into_iter().take(10) {
            let (share, layer) = (share(samples), frame.layer.name());
            let _ = writeln!(text, "  {share:6.1} %  {}  [{layer}]", frame.short());
        }
        let _ = writeln!(text, "  layers:");
        for (layer, samples) in self.layers() {
            let _ = writeln!(text, "  {:6.1} %  {}", share(samples), layer.name());
        }
        let _ = writeln!(
            text,
            "  system calls, with all that the kernel does in them:"
        );
        for (call, samples) in largest(self.calls.clone()).into_iter().take(6) {
            let _ = writeln!(text, "  {:6.1} %  {call}", share(samples));
        }
        text
    }
}

fn largest<K: Ord>(counts: BTreeMap<K, u64>) -> Vec<(K, u64)> {
    let mut list: Vec<_> = counts.into_iter().collect();
    list.sort_by_key(|(_, samples)| std::cmp::Reverse(*samples));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
tokio-rt-worker 
\tffffffff821ec951 udp_sendmsg ([kernel.kallsyms])
\tffffffff81e2f4dd __x64_sys_sendmmsg ([kernel.kallsyms])
\tffffffff821ec951 do_syscall_64 ([kernel.kallsyms])
\t          101829 syscall (/usr/lib/libc.so.6)
\t          390ec8 fulmar_netio::udp::UdpState::send_many (/a/place/fulmar)
\t          3b991e <fulmar_runtime::driver::Driver<T> as core::future::future::Future>::poll (/a/place/fulmar)
\t          1d559e tokio::runtime::task::core::Core<T,S>::poll (/a/place/fulmar)
\t           891f5 start_thread (/usr/lib/libc.so.6)

tokio-rt-worker 
\t          3dc641 fulmar_arq::flush::<impl fulmar_arq::kcp::Kcp<C>>::transmit (/a/place/fulmar)
\t          3b991e <fulmar_runtime::driver::Driver<T> as core::future::future::Future>::poll (/a/place/fulmar)
\tffffffffffffffff [unknown] ([unknown])

";

    #[test]
    fn names_are_readable() {
        for (symbol, name) in [
            ("<a::B<C> as d::E<F>>::g", "a::B::g"),
            ("a::b::<impl a::c::D<E>>::f", "a::c::D::f"),
            ("a::<impl b::C for d::E>::f", "d::E::f"),
            ("a::B<C,D<E>>::f::{{closure}}", "a::B::f::{closure}"),
            ("a::f::h0123456789abcdef", "a::f"),
            ("a::b::<fn() -> c::D>::e", "a::b::e"),
            ("<&mut a::B as c::D>::e", "a::B::e"),
            ("memcpy", "memcpy"),
        ] {
            assert_eq!(readable(symbol), name);
        }
        let short = |name: &str| {
            let name = name.to_owned();
            let layer = Layer::Rust;
            Frame { name, layer }.short()
        };
        assert_eq!(
            short("fulmar_arq::kcp::Kcp::transmit"),
            "arq::Kcp::transmit"
        );
        assert_eq!(short("a::b::c::d::{closure}"), "a::c::d::{closure}");
        assert_eq!(short("memcpy"), "memcpy");
    }

    #[test]
    fn system_calls_have_names() {
        let stack = |names: &[&str]| -> Vec<Frame> {
            let frame = |name: &&str| Frame::parse(&format!("1 {name}")).expect("a frame");
            names.iter().map(frame).collect()
        };
        let entry = "do_syscall_64 ([kernel.kallsyms])";
        for (inner, user, name) in [
            (
                "__x64_sys_sendmmsg ([kernel.kallsyms])",
                "syscall (/usr/lib/libc.so.6)",
                "sendmmsg",
            ),
            (
                "do_writev ([kernel.kallsyms])",
                "__GI___writev (/usr/lib/libc.so.6)",
                "writev",
            ),
            (
                "exit_to_user_mode_loop ([kernel.kallsyms])",
                "__GI___writev (/usr/lib/libc.so.6)",
                "writev",
            ),
            (
                "__sys_sendmsg ([kernel.kallsyms])",
                "__libc_sendmsg (/usr/lib/libc.so.6)",
                "sendmsg",
            ),
        ] {
            assert_eq!(call(&stack(&[inner, entry, user])).as_deref(), Some(name));
        }
        assert_eq!(call(&stack(&["memcpy (/usr/lib/libc.so.6)"])), None);
    }

    #[test]
    fn samples_become_a_tree() {
        let profile = Profile::parse(SCRIPT);
        assert_eq!(profile.total(), 2);
        let (driver, node) = profile.root.children.first_key_value().expect("one root");
        assert_eq!(driver.name, "fulmar_runtime::driver::Driver::poll");
        assert_eq!((profile.root.children.len(), node.total), (1, 2));
        let names: Vec<_> = node.children.keys().map(Frame::short).collect();
        assert_eq!(names, ["arq::Kcp::transmit", "netio::UdpState::send_many"]);
        assert_eq!(
            profile.layers(),
            [(Layer::Ours("arq"), 1), (Layer::Kernel, 1)]
        );
        let summary = profile.summary();
        assert!(summary.contains("50.0 %  sendmmsg"), "{summary}");
        assert!(!summary.contains('/'), "{summary}");
    }
}
