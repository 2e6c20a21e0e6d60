"""The subcommands of `spleen`: options and printing only; each calls the plain function of the same name."""
