//! A flame graph as SVG: callers below, callees above, widths are shares of processor time. Readable as it is; a browser
//! that shows the file itself has the whole name of each box as a tooltip.

use std::fmt::Write as _;

use super::stacks::{CRATES, Frame, Layer, Node, Profile};

const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 10.0;
const ROW: f64 = 18.0;
/// Pixels of a letter of the font at its size.
const LETTER: f64 = 6.65;
/// Narrower boxes are left out.
const NARROWEST: f64 = 0.6;
const HEAD: f64 = 58.0;
const LEGEND_ROW: f64 = 20.0;
const LEGEND_COLUMNS: usize = 6;

/// Draws `profile`, recorded at `hertz` samples per second.
pub(crate) fn draw(profile: &Profile, heading: &str, hertz: u32) -> String {
    let scale = (WIDTH - 2.0 * MARGIN) / profile.total() as f64;
    let depth = depth(&profile.root, scale);
    let mut layers = profile.layers();
    layers.retain(|(_, samples)| samples * 1000 >= profile.total());
    let legend = layers.len().div_ceil(LEGEND_COLUMNS) as f64 * LEGEND_ROW + 12.0;
    let bottom = HEAD + depth as f64 * ROW;
    let height = bottom + legend;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let seconds = profile.total() as f64 / f64::from(hertz);
    text(
        &mut svg,
        MARGIN,
        24.0,
        " font-size=\"16\" font-weight=\"bold\"",
        heading,
    );
    text(
        &mut svg,
        MARGIN,
        44.0,
        " fill=\"#555555\"",
        &format!(
            "widths: shares of {seconds:.1} s of processor time ({} samples); callers below, callees above",
            profile.total()
        ),
    );
    let mut picture = Picture {
        svg,
        bottom,
        scale,
        total: profile.total(),
    };
    picture.children(&profile.root, MARGIN, 0);
    let mut svg = picture.svg;
    for (i, (layer, samples)) in layers.iter().enumerate() {
        let x =
            MARGIN + (i % LEGEND_COLUMNS) as f64 * (WIDTH - 2.0 * MARGIN) / LEGEND_COLUMNS as f64;
        let y = bottom + 14.0 + (i / LEGEND_COLUMNS) as f64 * LEGEND_ROW;
        let share = 100.0 * *samples as f64 / profile.total() as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"12\" height=\"12\" fill=\"{}\"/>",
            colour(*layer)
        );
        let label = match layer {
            Layer::Rust => "other Rust",
            layer => layer.name(),
        };
        text(
            &mut svg,
            x + 17.0,
            y + 10.0,
            "",
            &format!("{label} {share:.1} %"),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

struct Picture {
    svg: String,
    /// Where the lowest row ends.
    bottom: f64,
    /// Pixels per sample.
    scale: f64,
    total: u64,
}

impl Picture {
    fn children(&mut self, node: &Node, mut x: f64, level: usize) {
        for (frame, child) in &node.children {
            let width = child.total as f64 * self.scale;
            if width >= NARROWEST {
                self.frame(frame, child, x, level, width);
                self.children(child, x, level + 1);
            }
            x += width;
        }
    }

    fn frame(&mut self, frame: &Frame, node: &Node, x: f64, level: usize, width: f64) {
        let y = self.bottom - (level + 1) as f64 * ROW;
        let share = 100.0 * node.total as f64 / self.total as f64;
        let called: u64 = node.children.values().map(|child| child.total).sum();
        let own = 100.0 * (node.total - called) as f64 / self.total as f64;
        let _ = writeln!(
            self.svg,
            "<g><title>{}\n{share:.1} % of the time, {own:.1} % in itself ({})</title>\
             <rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\" rx=\"1.5\" fill=\"{}\"/>",
            escaped(&frame.name),
            frame.layer.name(),
            (width - 0.5).max(0.4),
            ROW - 1.0,
            colour(frame.layer)
        );
        if let Some(label) = label(&frame.short(), share, width - 8.0) {
            text(&mut self.svg, x + 4.0, y + 12.5, "", &label);
        }
        self.svg.push_str("</g>\n");
    }
}

/// The name and the share, as much of it as fits.
fn label(name: &str, share: f64, width: f64) -> Option<String> {
    let fits = (width / LETTER) as usize;
    let full = format!("{name} {share:.1} %");
    // The last part of a name says most.
    let last = name.rsplit("::").find(|part| !part.starts_with('{'));
    [full.as_str(), name, last.unwrap_or(name)]
        .into_iter()
        .find(|text| text.chars().count() <= fits)
        .map(str::to_owned)
        .or_else(|| {
            let cut: String = last?.chars().take(fits.checked_sub(1)?).collect();
            (cut.len() >= 3).then(|| cut + "…")
        })
}

/// Rows that are drawn above `node`.
fn depth(node: &Node, scale: f64) -> usize {
    let wide = |child: &&Node| child.total as f64 * scale >= NARROWEST;
    let above = node.children.values().filter(wide);
    above
        .map(|child| 1 + depth(child, scale))
        .max()
        .unwrap_or(0)
}

/// One of its own for each crate of ours; the kernel is blue, everything else grey.
fn colour(layer: Layer) -> &'static str {
    const OURS: [&str; CRATES.len()] = [
        "#f6cf65", "#f29e4c", "#b5d99c", "#86b56f", "#ee7b5d", "#c98bdb", "#b07fd0", "#ec86a8",
        "#5bc0be",
    ];
    match layer {
        Layer::Ours(name) => {
            let at = CRATES.iter().position(|krate| *krate == name);
            OURS[at.unwrap_or(0)]
        }
        Layer::Rust => "#c9c4b8",
        Layer::Libc => "#b0b3b8",
        Layer::Kernel => "#9bbfe8",
    }
}

fn text(svg: &mut String, x: f64, y: f64, attributes: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\"{attributes}>{}</text>",
        escaped(text)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
x 
\t1 fulmar_a::<impl b<c>>::inner (/a/place/fulmar)
\t2 fulmar_session::session::Session::flush (/a/place/fulmar)

x 
\t2 fulmar_session::session::Session::flush (/a/place/fulmar)

";

    #[test]
    fn boxes_have_names_shares_and_no_paths() {
        let svg = draw(&Profile::parse(SCRIPT), "a & b", 100);
        assert!(svg.contains("a &amp; b"));
        assert!(svg.contains("session::Session::flush 100.0 %"), "{svg}");
        assert!(svg.contains("100.0 % of the time, 50.0 % in itself (session)"));
        assert!(!svg.contains("place"), "{svg}");
        assert_eq!(svg.matches("<g>").count(), 2);
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
    }

    #[test]
    fn labels_fit() {
        assert_eq!(
            label("a::b::c", 12.34, 100.0).as_deref(),
            Some("a::b::c 12.3 %")
        );
        assert_eq!(label("a::b::c", 12.34, 50.0).as_deref(), Some("a::b::c"));
        assert_eq!(
            label("a::b::function", 1.0, 60.0).as_deref(),
            Some("function")
        );
        assert_eq!(
            label("a::b::function", 1.0, 40.0).as_deref(),
            Some("funct…")
        );
        assert_eq!(label("a::b::function", 1.0, 10.0), None);
    }
}
