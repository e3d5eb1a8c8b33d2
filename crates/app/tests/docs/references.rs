//! References lead somewhere: from sources to sections of docs/spec, between pages, and from pages to sources and golden vectors.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The folders with sources.
const SOURCES: [&str; 6] = ["bench", "contrib", "crates", "fuzz", "interop", "xtask"];
/// The pages beside those in docs.
const PAGES: [&str; 4] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All files below `dir` whose names end with `end`, without those that a build makes.
fn files(dir: &Path, end: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                files(&path, end, found);
            }
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
}

fn sources(end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in SOURCES {
        files(&root().join(dir), end, &mut found);
    }
    found
}

fn pages() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = PAGES
        .iter()
        .map(|name| root().join(name))
        .filter(|path| path.exists())
        .collect();
    files(&root().join("docs"), ".md", &mut found);
    found
}

fn read(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The numbers of the headings of a page of docs/spec; `None` if there is no such page.
fn sections(page: &str) -> Option<BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("docs/spec").join(page)).ok()?;
    let headings = text.lines().filter_map(|line| {
        line.trim_start_matches('#')
            .strip_prefix(' ')
            .filter(|_| line.starts_with("##"))
    });
    Some(
        headings
            .filter_map(|heading| Some(heading.split(' ').next()?.to_owned()))
            .collect(),
    )
}

/// The words of a source file, comment marks left out, so that a reference may go over the end of a line.
fn words(text: &str) -> Vec<&str> {
    text.lines()
        .map(|line| {
            let line = line.trim_start();
            ["//! ", "/// ", "// "]
                .iter()
                .find_map(|mark| line.strip_prefix(mark))
                .unwrap_or(line)
        })
        .flat_map(str::split_whitespace)
        .collect()
}

/// `kcptun.md` of a word like `(docs/spec/kcptun.md,`, where `folder` is `docs/spec/`.
fn page_in<'a>(word: &'a str, folder: &str) -> Option<&'a str> {
    let (_, rest) = word.split_once(folder)?;
    let end = rest.find(".md")?;
    Some(&rest[..end + 3])
}

/// The numbers behind the word "section" or "sections".
fn numbers<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for word in words {
        let number = word.trim_end_matches(|c: char| !c.is_ascii_digit());
        if !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.') {
            found.push(number);
            if !matches!(&word[number.len()..], "" | ",") {
                break;
            }
        } else if !["and", "or", "to"].contains(word) {
            break;
        }
    }
    found
}

/// What is wrong with the references of one file. `own`: the page that it is, which sections without a page belong to.
fn faults(name: &str, text: &str, own: Option<&str>) -> (Vec<String>, usize) {
    let (mut faults, mut checked) = (Vec::new(), 0);
    let words = words(text);
    let mut page: Option<&str> = own;
    // Words since a page was named.
    let mut since = usize::MAX;
    for (i, word) in words.iter().enumerate() {
        since = since.saturating_add(1);
        let bare = word.trim_start_matches(|c: char| !c.is_alphanumeric());
        let folder = if own.is_some() { "](" } else { "spec/" };
        if let Some(named) = page_in(word, folder) {
            if own.is_none() {
                if !word.contains("docs/spec/") {
                    faults.push(format!("{name}: {word}: write docs/spec/"));
                }
                if sections(named).is_none() {
                    faults.push(format!("{name}: {word}: there is no such page"));
                }
            }
            (page, since) = (Some(named), 0);
        } else if bare.starts_with("RFC") || bare.starts_with("draft-ietf-") {
            (page, since) = (None, 0);
        }
        if !["section", "sections", "Section", "Sections"].contains(&bare) {
            continue;
        }
        let numbers = numbers(&words[i + 1..]);
        if numbers.is_empty() {
            continue;
        }
        let is_near = since <= 2;
        let page = match (page, own) {
            (Some(page), _) if own.is_none() || is_near => page,
            (None, _) if is_near || own.is_none() && since != usize::MAX => continue,
            (_, Some(own)) => own,
            _ => {
                faults.push(format!("{name}: section {}: of which page?", numbers[0]));
                continue;
            }
        };
        let Some(sections) = sections(page) else {
            continue;
        };
        for number in numbers {
            checked += 1;
            if !sections.contains(number) {
                faults.push(format!("{name}: {page} has no section {number}"));
            }
        }
    }
    (faults, checked)
}

#[test]
fn a_reference_to_a_specification_names_a_section_that_exists() {
    let (mut wrong, mut all) = (Vec::new(), 0);
    for path in sources(".rs").into_iter().chain(sources(".json")) {
        if path.ends_with("docs/references.rs") {
            continue;
        }
        let (faults, checked) = faults(&path.display().to_string(), &read(&path), None);
        wrong.extend(faults);
        all += checked;
    }
    for path in pages() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.parent().is_some_and(|dir| dir.ends_with("spec")) {
            let (faults, checked) = faults(&name, &read(&path), Some(&name));
            wrong.extend(faults);
            all += checked;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(all > 300, "{all} references");
}

#[test]
fn a_section_that_does_not_exist_is_found() {
    let found = |text: &str| faults("x.rs", text, None).0;
    assert_eq!(
        found("//! (docs/spec/kcptun.md, sections 7.1,\n//! 7.4 to 7.6)"),
        [""; 0]
    );
    assert_eq!(
        found("//! (docs/spec/kcptun.md, sections 7.1\n//! and 99)").len(),
        1
    );
    assert_eq!(
        found("// docs/spec/kcptun.md, then (section 9.6) and (section 9.77).").len(),
        1
    );
    assert_eq!(
        found("// (RFC 8899, section 5.2); later section 77."),
        [""; 0]
    );
    assert_eq!(found("// See section 3.").len(), 1);
    assert_eq!(found("// See docs/spec/kcptun3.md.").len(), 1);
    assert_eq!(found("// See spec/kcptun.md.").len(), 1);
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let heading = heading.to_lowercase();
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn a_link_leads_to_a_page_and_a_heading() {
    let (mut wrong, mut all) = (Vec::new(), 0);
    for page in pages() {
        let text = read(&page);
        for link in text.split("](").skip(1) {
            let Some((link, _)) = link.split_once(')') else {
                continue;
            };
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            all += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().expect("a folder").join(file),
            };
            let there = target.exists()
                && (heading.is_empty()
                    || read(&target).lines().any(|line| {
                        line.starts_with('#')
                            && anchor(line.trim_start_matches('#').trim()) == heading
                    }));
            if !there {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(all > 100, "{all} links");
}

#[test]
fn a_source_file_or_page_that_is_named_exists() {
    let (mut wrong, mut all) = (Vec::new(), 0);
    let crates = root().join("crates");
    for page in pages() {
        let text = read(&page);
        // Between backticks: `arq/src/config.rs`, from crates on or from the top.
        for (i, code) in text.split('`').enumerate() {
            let is_path = code.contains("/src/") || code.contains("/tests/");
            let is_plain = code
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "/_-.".contains(c));
            if i % 2 == 1 && is_path && is_plain && !code.ends_with("/NAME") {
                all += 1;
                if !crates.join(code).exists() && !root().join(code).exists() {
                    wrong.push(format!("{}: {code}", page.display()));
                }
            }
        }
    }
    for path in sources(".rs") {
        for word in words(&read(&path)) {
            if let Some(page) =
                page_in(word, "docs/").filter(|_| !path.ends_with("docs/references.rs"))
            {
                all += 1;
                if !page.contains(['{', '*']) && !root().join("docs").join(page).exists() {
                    wrong.push(format!("{}: {word}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(all > 150, "{all} paths");
}

#[test]
fn every_golden_vector_is_named_by_its_specification() {
    for (page, folder) in [
        ("kcptun.md", "kcptun"),
        ("kcptun2016.md", "kcptun-2016"),
        ("kcptun-libev.md", "kcptun-libev"),
    ] {
        let text = read(&root().join("docs/spec").join(page));
        let mut vectors = Vec::new();
        files(
            &root().join("crates/testkit/vectors").join(folder),
            ".json",
            &mut vectors,
        );
        assert!(vectors.len() > 5, "{folder}");
        for path in &vectors {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            assert!(
                text.contains(&format!("`{name}`")) || name.starts_with("session_client_close_"),
                "{page}: {name}"
            );
        }
        for code in text.split('`').skip(1).step_by(2) {
            let is_file = code.ends_with(".json") && !code.contains(['/', '*', ' ']);
            assert!(
                !is_file || vectors.iter().any(|path| path.ends_with(code)),
                "{page}: there is no {code}"
            );
        }
    }
}

#[test]
fn the_dependencies_of_crates_are_those_that_the_architecture_shows() {
    let text = read(&root().join("docs/architecture.md"));
    let mut shown = 0;
    for line in text.lines().filter(|line| line.starts_with("crates/")) {
        let name = line.split(' ').next().unwrap_or_default();
        let manifest = read(&root().join(name).join("Cargo.toml"));
        let (_, section) = manifest
            .split_once("\n[dependencies]\n")
            .unwrap_or_default();
        let section = section.split("\n[").next().unwrap_or_default();
        let has: BTreeSet<&str> = section
            .lines()
            .filter_map(|line| line.strip_prefix("fulmar-")?.split(['.', ' ']).next())
            .collect();
        let Some((_, told)) = line.split_once(" depends on ") else {
            continue;
        };
        let told: BTreeSet<&str> = told.split(", ").filter(|name| *name != "nothing").collect();
        assert_eq!(told, has, "{name}");
        shown += 1;
    }
    assert!(shown > 10, "{shown} crates");
}

/// The parts of a line that stand in the source as they are: what is between values, which a page writes as "…", in capitals, in
/// quotes, or as an option.
fn fixed_parts(line: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for (i, piece) in line.split('"').enumerate() {
        if i % 2 == 1 {
            parts.push(String::new());
            continue;
        }
        for word in piece.split(' ') {
            let bare = word.trim_end_matches([':', ',', ';']);
            let is_value = bare == "…"
                || bare.starts_with("--")
                || !bare.is_empty() && bare.chars().all(|c| c.is_ascii_uppercase());
            match parts.last_mut() {
                Some(part) if !is_value => {
                    part.push(' ');
                    part.push_str(word);
                }
                _ => parts.push(String::new()),
            }
        }
    }
    let parts = parts
        .iter()
        .map(|part| part.trim().trim_end_matches([':', ',']));
    parts
        .filter(|part| part.len() > 5)
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_log_line_in_a_guide_is_one_of_the_program() {
    let mut program = String::new();
    for path in sources(".rs") {
        if path.components().any(|part| part.as_os_str() == "src") {
            // Texts that go on in the next line of the source.
            let text = read(&path).replace("\\\"", "\"");
            for (i, line) in text.split("\\\n").enumerate() {
                program.push_str(if i == 0 { line } else { line.trim_start() });
            }
        }
    }
    let (mut wrong, mut all) = (Vec::new(), 0);
    let mut guides = Vec::new();
    files(&root().join("docs/guide"), ".md", &mut guides);
    for page in guides {
        let text = read(&page);
        let mut in_table = false;
        for line in text.lines() {
            in_table = line.starts_with("| line |")
                || line.starts_with("| what you see |")
                || in_table && line.starts_with('|');
            let cell = line
                .split('|')
                .nth(1)
                .filter(|_| in_table)
                .unwrap_or_default();
            for said in cell.split('`').skip(1).step_by(2) {
                all += 1;
                for part in fixed_parts(said) {
                    if !program.contains(&part) {
                        wrong.push(format!(
                            "{}: {said}: nothing says \"{part}\"",
                            page.display()
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(all > 12, "{all} lines");
}
