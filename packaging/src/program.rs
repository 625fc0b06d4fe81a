//! Receives a command line; hands on the manual page of the program, with all its commands.

use clap::{Arg, Command};

use crate::pages::{Program, text};

/// The page.
pub(crate) fn page(command: Command, about: &Program, date: &str) -> String {
    // `--help` is everywhere the same and is described once.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let name = command.get_name().to_owned();
    let mut page = text::title(&name, 8, date);
    text::name(&mut page, &name, about.purpose);
    text::heading(&mut page, "SYNOPSIS");
    text::paragraphs(&mut page, &[&format!("`{name}` COMMAND [OPTION...]")]);
    text::heading(&mut page, "DESCRIPTION");
    description(&mut page, &command);
    text::heading(&mut page, "OPTIONS OF EVERY COMMAND");
    options(&mut page, &command);
    text::heading(&mut page, "COMMANDS");
    commands(&mut page, &command);
    text::sections(&mut page, about.sections);
    text::folded(&page)
}

fn commands(page: &mut String, command: &Command) {
    for command in command.get_subcommands() {
        if command.has_subcommands() {
            commands(page, command);
            continue;
        }
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
        text::subheading(page, name);
        text::paragraphs(page, &[&synopsis(command, name)]);
        text::break_paragraph(page);
        description(page, command);
        options(page, command);
        if let Some(examples) = command.get_after_help() {
            text::verbatim(page, &examples.to_string());
        }
    }
}

fn description(page: &mut String, command: &Command) {
    let Some(about) = command.get_long_about().or_else(|| command.get_about()) else {
        return;
    };
    let about = about.to_string();
    let paragraphs: Vec<_> = about
        .split("\n\n")
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect();
    let paragraphs: Vec<_> = paragraphs.iter().map(String::as_str).collect();
    text::paragraphs(page, &paragraphs);
}

fn synopsis(command: &Command, name: &str) -> String {
    let usage = command.clone().render_usage().to_string();
    let arguments = usage
        .split_once(name)
        .map_or("", |(_, arguments)| arguments);
    format!("`{name}`{}", arguments.replace("[OPTIONS]", "[OPTION...]"))
}

/// Options in the order of their definition, then what has no dashes. What every command has is said once, above.
fn options(page: &mut String, command: &Command) {
    let is_top = command
        .get_bin_name()
        .is_none_or(|name| name == command.get_name());
    let everywhere = |argument: &Arg| argument.is_global_set() || argument.get_id() == "help";
    let shown = |argument: &&Arg| !argument.is_hide_set() && (is_top || !everywhere(argument));
    let (last, first): (Vec<_>, Vec<_>) = command
        .get_arguments()
        .filter(shown)
        .partition(|argument| argument.is_positional());
    for argument in first.into_iter().chain(last) {
        text::tagged(page, &tag(argument), &said(argument));
    }
}

fn tag(argument: &Arg) -> String {
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let mut tag: Vec<_> = short.into_iter().chain(long).collect();
    let takes_values = argument
        .get_num_args()
        .is_some_and(|count| count.takes_values());
    let names = argument.get_value_names().unwrap_or_default().join(" ");
    match (tag.pop(), takes_values) {
        (Some(option), true) => tag.push(format!("{option} {names}")),
        (Some(option), false) => tag.push(option),
        (None, _) => tag.push(names),
    }
    tag.join(", ")
}

fn said(argument: &Arg) -> String {
    let help = argument
        .get_long_help()
        .or_else(|| argument.get_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut said = help
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .trim_end_matches('.')
        .to_owned()
        + ".";
    if !argument
        .get_num_args()
        .is_some_and(|count| count.takes_values())
    {
        return said;
    }
    let words = |words: &mut dyn Iterator<Item = String>| {
        words
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let possible = words(
        &mut argument
            .get_possible_values()
            .iter()
            .map(|value| value.get_name().to_owned()),
    );
    if !possible.is_empty() {
        said += &format!(" One of {possible}.");
    }
    let default = words(
        &mut argument
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy().into_owned()),
    );
    if !default.is_empty() {
        said += &format!(" Default {default}.");
    }
    if let Some(variable) = argument.get_env() {
        said += &format!(
            " Else what the variable `{}` says.",
            variable.to_string_lossy()
        );
    }
    said
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::pages;

    /// Every command of a program and every option of it, as the command line has them.
    fn named(command: &Command) -> Vec<String> {
        let own = command
            .get_arguments()
            .filter(|argument| !argument.is_hide_set())
            .filter_map(Arg::get_long);
        let own = own.map(|long| format!("\\-\\-{}", long.replace('-', "\\-")));
        let below = command.get_subcommands().flat_map(|command| {
            std::iter::once(command.get_name().replace('-', "\\-")).chain(named(command))
        });
        own.chain(below).collect()
    }

    #[test]
    fn every_page_names_every_command_and_every_option() {
        let programs = [
            (driftmark_agent::cli::Cli::command(), &pages::AGENT),
            (driftmark_collector::cli::Cli::command(), &pages::COLLECTOR),
        ];
        for (command, about) in programs {
            let names = named(&command);
            assert!(names.len() > 30, "{names:?}");
            let page = page(command, about, "2026-01-01");
            for name in names {
                assert!(page.contains(&name), "{name} is not described");
            }
        }
    }
}
