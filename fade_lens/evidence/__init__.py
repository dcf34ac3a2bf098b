"""Evidence: windows of texts with a feature's token activations, for explainers to be shown and for scorers to test on.

`Evidence(subject)` is made once a run. `active` and `silent` draw windows for all features, `read` runs their texts once, token by token.
Every text has one of four roles, by its document: what an explainer was shown is never what a score is tested on.
"""
