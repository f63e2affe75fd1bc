//! The table of predicted and measured runs in `docs/SCALE.md`.

use super::{
    inputs::Inputs,
    measured::Run,
    tables::{number, prose, short, table},
    validation::{Comparison, compare},
};

/// Comparisons of all runs, then what they are and which are beyond the bound.
pub(super) fn validation(inputs: &Inputs) -> String {
    let mut rows = Vec::new();
    let (mut count, mut beyond) = (0_u32, 0_u32);
    for run in &inputs.runs {
        for comparison in compare(inputs, run) {
            count += 1;
            beyond += u32::from(!comparison.is_within_bound());
            rows.push(row(run, &comparison));
        }
    }
    let measured = &inputs.measured;
    let note = format!(
        "{} of {count} predictions are within 20 % of the measurement, or within a point of a tier's share; the others are \
         bold. Measured: {}.",
        count - beyond,
        measured.measured_on
    );
    let table = table(&["run", "predicted", "measured", "error"], &rows);
    let mut text = format!("{table}\n{}", prose(&note));
    if !measured.assumed.is_empty() {
        let names: Vec<_> = measured.assumed.keys().map(|name| format!("`cost_{name}`")).collect();
        let assumed = format!("Not measured in this run, but assumed: {}.", names.join(", "));
        text.extend(["\n", &prose(&assumed)]);
    }
    text
}

fn row(run: &Run, comparison: &Comparison) -> Vec<String> {
    let kind = if run.before > 0.0 { ", filled L2" } else { "" };
    let name = format!("{} links{kind}, {} redirects", short(run.links), short(run.requests));
    let error = format!("{:+.0} %", 100.0 * comparison.error());
    let error = if comparison.is_within_bound() { error } else { format!("**{error}**") };
    let show = |value: f64| format!("{} {}", number(value), comparison.unit);
    vec![
        format!("{name}: {}", comparison.what),
        show(comparison.predicted),
        show(comparison.measured),
        error,
    ]
}
