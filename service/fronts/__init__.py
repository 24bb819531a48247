"""Several HTTP processes in front of one engine process (`bindery serve --http-workers N`).

`supervisor` starts them, `front` is one HTTP process, `desk` is where the engine's process takes what they ask; between them `line`,
`relay` and `packing`.
"""
