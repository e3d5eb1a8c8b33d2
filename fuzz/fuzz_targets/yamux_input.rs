#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fulmar_fuzzing::yamux_input(data));
