//! Medians in; the Markdown that README shows out.

use crate::turns::Run;

/// One line of a table.
#[derive(Debug, Clone)]
pub struct Line {
    /// What was run.
    pub what: String,
    /// Its median.
    pub run: Run,
    /// What it is held against, and within what.
    pub held: Option<Held>,
}

/// A budget: a ratio of two medians of one race.
#[derive(Debug, Clone)]
pub struct Held {
    /// What it is held against.
    pub against: &'static str,
    /// The median of that.
    pub ceiling: Run,
    /// How it is shown and judged.
    pub budget: Budget,
}

/// What a ratio may be.
#[derive(Debug, Clone, Copy)]
pub enum Budget {
    /// It takes at most so many times as long.
    Within(f64),
    /// It is at least this share of the ceiling's speed.
    Share(f64),
    /// It is at least so many times as fast.
    Faster(f64),
    /// Nothing is promised.
    Shown,
}

impl Held {
    fn text(&self, run: &Run) -> String {
        let times = run.wall.as_secs_f64() / self.ceiling.wall.as_secs_f64();
        let against = self.against;
        let (shown, wanted, met) = match self.budget {
            Budget::Within(most) => (times, format!(" (≤ {most})"), times <= most),
            Budget::Share(least) => (
                1.0 / times,
                format!("'s speed (≥ {least})"),
                1.0 / times >= least,
            ),
            Budget::Faster(least) => (
                1.0 / times,
                format!("'s speed (≥ {least})"),
                1.0 / times >= least,
            ),
            Budget::Shown => (times, String::new(), true),
        };
        let met = if met { "" } else { ": missed" };
        let cpu = match (run.cpu, self.ceiling.cpu) {
            (Some(own), Some(its)) if !its.is_zero() => {
                format!("; {:.2} × its CPU", own.as_secs_f64() / its.as_secs_f64())
            }
            _ => String::new(),
        };
        format!("{shown:.2} × {against}{wanted}{met}{cpu}")
    }
}

/// The lines as a table.
pub fn markdown(lines: &[Line]) -> String {
    let mut text = String::from(
        "| what | wall | CPU | paths | content | peak memory | held against (budget) |\n|---|---|---|---|---|---|---|\n",
    );
    for Line { what, run, held } in lines {
        let held = held
            .as_ref()
            .map_or_else(|| "—".to_owned(), |held| held.text(run));
        text.push_str(&format!(
            "| {what} | {:.2} s | {} | {} | {:.2} GiB | {} | {held} |\n",
            run.wall.as_secs_f64(),
            run.cpu.map_or_else(
                || "—".to_owned(),
                |cpu| format!("{:.2} s", cpu.as_secs_f64())
            ),
            run.entries,
            run.bytes as f64 / f64::from(1 << 30),
            peak(run),
        ));
    }
    text
}

/// The most memory that a run had, for people.
pub fn peak(run: &Run) -> String {
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    run.peak_kib.map_or_else(|| "—".to_owned(), mib)
}

/// A budget that is no ratio of two medians.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// What it may be, for people.
    pub budget: &'static str,
    /// What it was, for people.
    pub value: String,
    /// Whether that is within the budget; none where nothing is promised.
    pub is_held: Option<bool>,
}

impl Figure {
    /// A figure with its budget.
    pub fn held(what: impl Into<String>, budget: &'static str, value: String, is: bool) -> Self {
        Figure {
            what: what.into(),
            budget,
            value,
            is_held: Some(is),
        }
    }

    /// One of which nothing is promised.
    pub fn shown(what: impl Into<String>, value: String) -> Self {
        Figure {
            what: what.into(),
            budget: "—",
            value,
            is_held: None,
        }
    }
}

/// The figures as a table.
pub fn budgets(figures: &[Figure]) -> String {
    let mut text = String::from("| what | budget | measured | |\n|---|---|---|---|\n");
    for figure in figures {
        let held = match figure.is_held {
            Some(true) => "held",
            Some(false) => "**missed**",
            None => "",
        };
        let Figure {
            what,
            budget,
            value,
            ..
        } = figure;
        text.push_str(&format!("| {what} | {budget} | {value} | {held} |\n"));
    }
    text
}
