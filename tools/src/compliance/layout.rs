//! One report, written for a terminal or as Markdown.

use crate::{exit::Failure, print};

/// A part of a report.
pub(super) enum Block {
    Heading(String),
    Pairs(Vec<(&'static str, String)>),
    Table { head: &'static [&'static str], rows: Vec<Vec<String>> },
    Text(String),
}

pub(super) fn print_text(blocks: &[Block]) -> Result<(), Failure> {
    for block in blocks {
        match block {
            Block::Heading(text) => print::line(&format!("\n{}", print::plain(text)))?,
            Block::Pairs(pairs) => {
                for (name, value) in pairs {
                    print::line(&print::plain(&format!("  {name:<32} {value}")))?;
                }
            }
            Block::Table { rows, .. } if rows.is_empty() => print::line("  none")?,
            Block::Table { head, rows } => {
                let mut table = comfy_table::Table::new();
                table.load_style(comfy_table::presets::NOTHING);
                table.set_header(head.iter());
                for row in rows {
                    table.add_row(row.iter().map(|cell| print::plain(cell)));
                }
                print::line(&table.to_string())?;
            }
            Block::Text(text) => print::line(&print::plain(text))?,
        }
    }
    Ok(())
}

pub(super) fn print_markdown(blocks: &[Block]) -> Result<(), Failure> {
    let mut first = true;
    for block in blocks {
        match block {
            Block::Heading(text) => {
                let mark = if first { "#" } else { "##" };
                let before = if first { "" } else { "\n" };
                print::line(&format!("{before}{mark} {}\n", cell(text)))?;
                first = false;
            }
            Block::Pairs(pairs) => {
                let head = ["", ""];
                let rows =
                    pairs.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]);
                table(&head, rows)?;
            }
            Block::Table { rows, .. } if rows.is_empty() => print::line("None.")?,
            Block::Table { head, rows } => table(head, rows.iter().cloned())?,
            Block::Text(text) => print::line(&format!("\n{}", cell(text)))?,
        }
    }
    Ok(())
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<(), Failure> {
    print::line(&format!("| {} |", head.join(" | ")))?;
    print::line(&format!("|{}", "---|".repeat(head.len())))?;
    for row in rows {
        let cells: Vec<String> = row.iter().map(|value| cell(value)).collect();
        print::line(&format!("| {} |", cells.join(" | ")))?;
    }
    Ok(())
}

/// Text that stays in its cell and is shown as it is: a dialled string must not become a link, a
/// line or a column.
fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in print::plain(text).chars() {
        if matches!(c, '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '!') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn nothing_leaves_its_cell() {
        assert_eq!(cell("plain 911"), "plain 911");
        assert_eq!(cell("a|b\n[x](y)"), "a\\|b\u{fffd}\\[x\\](y)");
        assert_eq!(cell("<b>"), "\\<b\\>");
    }
}
