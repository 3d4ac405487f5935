//! `headroom dev`

use crate::args::{Arguments, Dev, DevCommand, Rowwise};
use crate::failure::Failure;
use crate::output;
use crate::program::Program;
use clap::CommandFactory;
use serde_json::json;
use std::path::Path;

pub fn dev(program: &Program, options: &Dev) -> Result<(), Failure> {
    let (rows, count) = match &options.command {
        DevCommand::Man { folder } => return man(folder),
        DevCommand::Dequantize(rows) => (rows, dequantize(rows)?),
        DevCommand::Quantize(rows) => (rows, quantize(rows)?),
    };
    if program.json {
        return output::json(&json!({ "rows": count, "columns": rows.columns }));
    }
    Ok(())
}

/// One page for each command.
fn man(folder: &Path) -> Result<(), Failure> {
    clap_mangen::generate_to(Arguments::command(), folder).map_err(|error| Failure::io(folder, error))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::io(path, error))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    Ok(app::write_output(path, &mut |out| out.write_all(bytes))?)
}

fn row_bytes(rows: &Rowwise) -> Result<usize, Failure> {
    rows.ty.row_bytes(rows.columns).filter(|bytes| *bytes > 0).ok_or_else(|| {
        Failure::usage(format!("rows of {} need a multiple of {} values", rows.ty, rows.ty.block_size()))
    })
}

fn whole_rows(bytes: &[u8], row: usize) -> Result<(), Failure> {
    if bytes.len() % row == 0 {
        return Ok(());
    }
    Err(Failure::usage(format!("the input has {} bytes, which are no whole rows of {row}", bytes.len())))
}

/// Returns the number of rows.
fn dequantize(rows: &Rowwise) -> Result<usize, Failure> {
    let input = read(&rows.input)?;
    let row = row_bytes(rows)?;
    whole_rows(&input, row)?;
    let mut values = vec![0f32; input.len() / row * rows.columns];
    for (packed, values) in input.chunks_exact(row).zip(values.chunks_exact_mut(rows.columns)) {
        quant::dequantize_row(rows.ty, packed, values).map_err(|error| Failure::new("unsupported-type", error))?;
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    write(&rows.output, &bytes)?;
    Ok(input.len() / row)
}

/// Returns the number of rows.
fn quantize(rows: &Rowwise) -> Result<usize, Failure> {
    let floats = |bytes: Vec<u8>| -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    let row = row_bytes(rows)?;
    let input = read(&rows.input)?;
    whole_rows(&input, rows.columns * 4)?;
    let input = floats(input);
    let importance = rows.imatrix.as_deref().map(read).transpose()?.map(floats);
    let mut packed = vec![0u8; input.len() / rows.columns * row];
    for (values, packed) in input.chunks_exact(rows.columns).zip(packed.chunks_exact_mut(row)) {
        quant::quantize_row(rows.ty, values, importance.as_deref(), packed)
            .map_err(|error| Failure::new("unsupported-type", error))?;
    }
    write(&rows.output, &packed)?;
    Ok(input.len() / rows.columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_every_command_and_flag() {
        let folder = tempfile::tempdir().unwrap();
        man(folder.path()).unwrap();
        let mut command = Arguments::command();
        command.build();
        let mut names = vec!["headroom.1".to_owned()];
        for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
            let name = format!("headroom-{}.1", command.get_name());
            let page = std::fs::read_to_string(folder.path().join(&name))
                .unwrap()
                .replace("\\*(Aq", "'")
                .replace("\\(aq", "'")
                .replace('\\', "");
            let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
            for flag in shown.filter_map(|argument| argument.get_long()) {
                assert!(page.contains(&format!("--{flag}")), "--{flag} in {name}");
            }
            assert!(page.contains(&command.get_about().unwrap().to_string()), "{name}");
            names.push(name);
        }
        let whole = std::fs::read_to_string(folder.path().join("headroom.1"))
            .unwrap()
            .replace("\\*(Aq", "'")
            .replace("\\(aq", "'")
            .replace('\\', "");
        for name in &names[1..] {
            assert!(whole.contains(name.strip_suffix(".1").unwrap()), "{name}");
        }
        assert!(names.len() > 20, "{names:?}");
    }
}
