//! Errors of inputs.

/// Why inputs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Not JSON, or a field is missing, unknown or of another type.
    #[error("the inputs are not valid JSON of the expected form")]
    Json(#[from] serde_json::Error),
    /// A number is outside its range.
    #[error("`{name}` must be {rule}, but is {value}")]
    Range {
        /// Field.
        name: String,
        /// Its rule.
        rule: &'static str,
        /// Its value.
        value: f64,
    },
    /// A cost or a run needs a figure that was not measured.
    #[error("the figure `cost_{0}` is missing: measure it with `make bench ONLY=cost`")]
    NoFigure(String),
}
