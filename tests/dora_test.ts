import { testPeftCase } from "./peft_methods.ts";

for (const name of ["dora", "dora_rslora"]) testPeftCase(name, "dora");
