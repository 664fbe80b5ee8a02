# Adds up pytest's closing lines: "== 3 passed, 1 skipped in 2.50s ==".
{
  for (i = 2; i <= NF; i++) {
    word = $i
    if ($(i - 1) ~ /^[0-9]+$/ && sub(/,?$/, "", word)) {
      if (!(word in count)) order[++words] = word
      count[word] += $(i - 1)
    }
    if ($(i - 1) == "in") seconds += $i
  }
}
END {
  for (i = 1; i <= words; i++) line = line (i > 1 ? ", " : "") count[order[i]] " " order[i]
  printf "===== %s in %.2fs =====\n", line, seconds
}
