//! Tables of text: for a terminal, and as Markdown for the README of a record.

/// Rows below a heading; columns of numbers stand to the right.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// The heading first.
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned).to_vec()] }
    }

    /// Adds a row; cells that are missing at its end are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().collect();
        row.resize(self.rows[0].len(), String::new());
        self.rows.push(row);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// For a terminal: columns as wide as their widest cell, two spaces between them.
    pub(crate) fn text(&self) -> String {
        let columns = 0..self.rows[0].len();
        let width = |at: usize| self.rows.iter().map(|row| row[at].chars().count()).max();
        let widths: Vec<usize> = columns.clone().map(|at| width(at).unwrap_or(0)).collect();
        let right: Vec<bool> = columns.map(|at| self.is_numeric(at)).collect();
        let line = |row: &Vec<String>| {
            let cell = |(at, cell): (usize, &String)| match right[at] {
                true => format!("{cell:>0$}", widths[at]),
                false => format!("{cell:<0$}", widths[at]),
            };
            let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
            format!("{}\n", cells.join("  ").trim_end())
        };
        self.rows.iter().map(line).collect()
    }

    pub(crate) fn markdown(&self) -> String {
        let mut lines = self.rows.iter().map(|row| {
            let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        });
        let heading = lines.next().unwrap_or_default();
        let rule = format!("|{}\n", "---|".repeat(self.rows[0].len()));
        [heading, rule].into_iter().chain(lines).collect()
    }

    fn is_numeric(&self, at: usize) -> bool {
        let mut cells = self.rows[1..].iter().map(|row| row[at].as_str()).filter(|c| !c.is_empty());
        let begins =
            |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit() || "+-~?".contains(c));
        at > 0 && cells.all(begins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_numbers_stand_to_the_right() {
        let mut table = Table::new(["what", "value", "unit"]);
        table.row(["reading".into(), "2.5".into(), "ms".into()]);
        table.row(["a | b".into(), "-".into()]);
        table.row(["all".into(), "~120".into(), "GB/s".into()]);
        let text =
            "what     value  unit\nreading    2.5  ms\na | b        -\nall       ~120  GB/s\n";
        assert_eq!(table.text(), text);
        let markdown = "| what | value | unit |\n|---|---|---|\n| reading | 2.5 | ms |\n\
                        | a \\| b | - |  |\n| all | ~120 | GB/s |\n";
        assert_eq!(table.markdown(), markdown);
    }
}
