#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fulmar_fuzzing::sip003_options(data));
