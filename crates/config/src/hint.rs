//! "Did you mean": the known word nearest to a misspelt one.

/// The candidate nearest to `word`, or `None` when none is near enough to be meant.
///
/// Near means: equal without regard to case, hyphens and underscores, or a few edits away, fewer for short words.
/// The first of several equally near candidates wins.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Long texts are nobody's slip of the finger, and distances cost the product of the lengths.
    const LONGEST: usize = 40;
    let plain = simplify(word);
    if plain.is_empty() || plain.len() > LONGEST {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(&plain, &simplify(candidate)), candidate))
        .filter(|(distance, candidate)| {
            let length = plain.len().max(candidate.chars().count());
            *distance <= (length / 3).min(3)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn simplify(word: &str) -> Vec<char> {
    word.chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Edits (insert, delete, replace, swap neighbours) from `a` to `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = core::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 8] = [
        "mtu",
        "mode",
        "nocomp",
        "qpp-count",
        "nc",
        "datashard",
        "sndwnd",
        "rcvwnd",
    ];

    #[test]
    fn finds_what_was_meant() {
        for (word, meant) in [
            ("QPPCount", Some("qpp-count")),
            ("data_shard", Some("datashard")),
            ("datashards", Some("datashard")),
            ("nocmop", Some("nocomp")),
            ("mdoe", Some("mode")),
            ("mut", Some("mtu")),
            ("snd-wnd", Some("sndwnd")),
            ("x", None),
            ("", None),
            ("password", None),
        ] {
            assert_eq!(nearest(word, KEYS), meant, "{word}");
        }
        assert_eq!(nearest(&"a".repeat(100_000), KEYS), None);
    }

    #[test]
    fn distances() {
        let d = |a: &str, b: &str| distance(&simplify(a), &simplify(b));
        assert_eq!((d("", "abc"), d("abc", ""), d("abc", "abc")), (3, 3, 0));
        assert_eq!(
            (d("abc", "acb"), d("abc", "axc"), d("kitten", "sitting")),
            (1, 1, 3)
        );
    }
}
