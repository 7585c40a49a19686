//! Complete pipeline files that are refused for other parts than steps.

/// Complete files with other parts than steps.
pub(super) const TEXTS: &[(&str, &str)] = &[
    ("[[steps]\n", "TOML parse error"),
    ("[step]\nstage = 'read'\n", "unknown field `step`"),
    ("steps = 3\n", "invalid type"),
    (
        "[parameters]\nsize = [3]\n[[steps]]\nstage = 'read'\n",
        "expected text or a table",
    ),
    (
        "[parameters]\nsize = ''\n[[steps]]\nstage = 'read'\n",
        "size is not used",
    ),
    (
        "[parameters]\nrun = '1'\n[[steps]]\nstage = 'read'\nmax-bad-fraction = '${run}'\n",
        "the workflow engines reserve this name",
    ),
    (
        "[parameters]\nencoder = {}\n[[steps]]\nstage = 'read'\n[[steps]]\nstage = 'embed'\nmodel = '${encoder}'\n",
        "parameter encoder is required",
    ),
    (
        "[parameters]\nside = { min = 3 }\n[[steps]]\nstage = 'read'\n",
        "parameter side: min without a type",
    ),
    (
        "[parameters]\nside = { default = '-1', type = 'integer', min = 0 }\n[[steps]]\nstage = 'read'\n\
        [[steps]]\nstage = 'filter'\nrule = { r = 'width > ${side}' }\n",
        "parameter side: expected a whole number of at least 0, got \"-1\"",
    ),
    (
        "[parameters]\nside = { default = '1', type = 'side' }\n[[steps]]\nstage = 'read'\n",
        "unknown variant `side`",
    ),
];
