//! One typed configuration model, with provenance, and a front end per syntax.
