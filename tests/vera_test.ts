import { testPeftCase } from "./peft_methods.ts";

testPeftCase("vera", "vera");
