import { assertEquals } from "@std/assert";
import { digits, median, tableHead, tableRow } from "../bench/table.ts";

Deno.test("digits() gives three digits, and none after the third decimal", () => {
  const numbers = [0, 0.0004, 0.0351, 0.12345, 1, 9.876, 35.12, 123.4, 1234.5, NaN];
  const texts = ["0", "0", "0.035", "0.123", "1.00", "9.88", "35.1", "123", "1235", "NaN"];
  assertEquals(numbers.map(digits), texts);
});

Deno.test("a table reads as Markdown, with its first column flush left", () => {
  const columns = [["case", 6], ["ms", 5]] as const;
  const lines = [tableHead(columns), tableRow(columns, ["a", "1.5"])].join("\n");
  assertEquals(lines, "| case   |    ms |\n| ------ | ----: |\n| a      |   1.5 |");
  assertEquals([median([3, 1, 2]), median([4, 1, 2, 3])], [2, 3]);
});
