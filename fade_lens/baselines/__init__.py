"""What scores are worth: null descriptions, cross scores, permutation tests, planted truth."""
